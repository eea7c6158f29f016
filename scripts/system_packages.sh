# Sourced by test.sh: installs what the live demo's tests need of the system, namely a display (Xvfb), keys to press on it
# (xdotool), a window manager (openbox), which bring the libraries of OpenCV's windows along, a browser (Chromium), and,
# where npm is there, axe-core in its cache. Where they cannot be installed, a line says so, and those tests are skipped.

# Prints the packages whose programs are missing.
missing_packages() {
    local pair
    for pair in Xvfb:xvfb xdotool:xdotool openbox:openbox chromium:chromium; do
        command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair#*:}"
    done
}

# Runs apt-get as root, without questions and with a time limit.
apt_as_root() {
    local limit_s="$1" root=()
    shift
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    timeout --kill-after=30 "$limit_s" "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq \
        -o DPkg::Lock::Timeout=60 -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@" \
        </dev/null >/dev/null 2>&1
}

# Installs what is missing: as root, or in CI (CI=true) by sudo where that asks for no password.
install_system_packages() {
    local packages
    mapfile -t packages < <(missing_packages)
    [ "${#packages[@]}" -gt 0 ] || return 0
    if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || { [ -n "${CI:-}" ] && sudo -n true 2>/dev/null; }; }; then
        say "Installing ${packages[*]} (apt-get, once)"
        apt_as_root 180 update || true # an old list may do
        local package
        for package in "${packages[@]}"; do # one by one: not every system has each of them under this name
            apt_as_root 600 install -y --no-install-recommends "$package" || true
        done
        mapfile -t packages < <(missing_packages)
        [ "${#packages[@]}" -gt 0 ] || return 0
    fi
    echo "note: the demo's tests that need ${packages[*]} are skipped (apt-get install ${packages[*]})"
}

# Fetches axe-core, which checks the demo's page for accessibility.
cache_axe() {
    command -v npm >/dev/null && timeout 60 npm cache add axe-core@4 >/dev/null 2>&1 && return
    echo "note: the test of the page's accessibility, which needs npm and axe-core, is skipped"
}
