# Sourced by the other scripts: goes to the repository's root, makes .venv there and installs what is asked for.
# usage: source scripts/setup.sh; setup_venv requirements.txt [requirements-more.txt ...]; then "$PYTHON" is the one to use.
# PYTHON3=/path/to/python3 picks the Python that .venv is made with (3.10 or newer).

cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }

setup_venv() {
    local python3="${PYTHON3:-python3}"
    PYTHON="$PWD/.venv/bin/python"
    if ! [ -x "$PYTHON" ]; then
        if ! "$python3" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "error: '$python3' is not Python 3.10 or newer; set PYTHON3 to one that is" >&2
            exit 2
        fi
        say "Making .venv with $("$python3" --version)"
        if ! "$python3" -m venv .venv; then
            rm -rf .venv
            echo "error: '$python3 -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2
            exit 2
        fi
    fi
    install_requirements "$@"
}

# Installs files of requirements into .venv, once for each set of files and its content; fails where pip does.
install_requirements() {
    local stamp=".venv/installed" want file arguments=() # a line for each set of requirements that is in place
    want="$* $(cat "$@" | cksum)"
    grep -qsxF "$want" "$stamp" && return
    say "Installing $* (once; what is large takes minutes)"
    for file in "$@"; do arguments+=(-r "$file"); done
    "$PYTHON" -m pip install --disable-pip-version-check --progress-bar off -q "${arguments[@]}" || return
    printf '%s\n' "$want" >>"$stamp"
}
