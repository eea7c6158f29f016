// This device's camera: its picture goes to the server one at a time, so that nothing piles up.

import { Connection } from "./connection.js";

const WIDTH = 320, HEIGHT = 240;  // of the pictures sent: the published camera size
const QUALITY = 0.9;

const AGAIN = "then press the button again.";
const PROBLEMS = {
  NotAllowedError: `This page was not allowed to use the camera. Allow it by the symbol beside the address, ${AGAIN}`,
  NotFoundError: `This device has no camera that the browser can see. Plug one in, ${AGAIN}`,
  OverconstrainedError: `That camera is gone. Choose another one, or plug it in, ${AGAIN}`,
  NotReadableError: `The camera is in use by another program or page. Close that one, ${AGAIN}`,
};
export const UNPLUGGED = `The camera has stopped giving pictures. Check that it is plugged in, ${AGAIN}`;

export function problem(error) {
  return PROBLEMS[error.name] ?? `The camera cannot be started (${error.message}). Try another browser or camera.`;
}

export function insecureProblem() {
  const port = location.port || "80";
  return "Browsers give their camera only to pages of this machine and to https. Run "
    + `ssh -L ${port}:localhost:${port} ${location.hostname} and open http://localhost:${port}, or start the demo with --cert.`;
}

export class Camera {
  // Shows the camera in `video`. onstate, onmessage: as Connection's. onend(): the camera has stopped by itself.
  constructor(video, { onstate, onmessage, onend }) {
    Object.assign(this, { video, onstate, onmessage, onend });
    this.canvas = document.createElement("canvas");
    this.intervalMs = this.turn = 0;
  }

  // Start, or change to, the camera of this id; "" leaves the choice to the browser, which prefers the front one.
  async start(deviceId = "") {
    const size = { width: { ideal: WIDTH }, height: { ideal: HEIGHT } };
    const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
    this.stop();  // many cameras cannot be opened twice
    const media = await navigator.mediaDevices.getUserMedia({ video: { ...size, ...which }, audio: false });
    this.stop();  // another one that was chosen meanwhile
    this.media = media;
    const track = media.getVideoTracks()[0];
    track.onended = () => { if (this.media === media) this.onend(); };
    this.video.srcObject = media;
    this.video.classList.toggle("mirrored", track.getSettings().facingMode !== "environment");
    await this.video.play();
    this.connect();
  }

  get deviceId() {
    return this.media?.getVideoTracks()[0].getSettings().deviceId ?? "";
  }

  connect() {
    this.connection?.close();
    this.usedAt = -Infinity;
    this.doneAt = [];
    this.connection = new Connection("camera", this.onstate, (message) => this.receive(message));
  }

  // Let the camera run, but send nothing; the server forgets the frames so far.
  pause() {
    this.connection?.close();
    this.connection = null;
    this.video.pause();
  }

  async resume() {
    await this.video.play();
    this.connect();
  }

  stop() {
    this.pause();
    this.media?.getTracks().forEach((track) => track.stop());
    this.media = null;
    this.video.srcObject = null;
  }

  receive(message) {
    if (message.kind === "answer") {
      const now = performance.now();
      this.doneAt = [...this.doneAt.slice(-29), now];
      message.transfer_ms = Math.max(0, now - this.codedAt - message.network_ms - message.capture_ms);
      message.capture_ms += this.codedAt - this.usedAt;
      message.delay_ms = now - this.takenAt;
      if (this.doneAt.length > 1) message.fps = 1000 * (this.doneAt.length - 1) / (now - this.doneAt[0]);
    } else {
      this.intervalMs = message.rate ? 1000 / message.rate : 0;
    }
    this.onmessage(message);
    this.sendNext(this.connection);
  }

  async sendNext(connection) {
    connection.isDue = false;
    const turn = this.turn += 1;  // a connection that is opened again begins another one
    let takenAt;
    // Half a camera frame early rather than a whole one late.
    do takenAt = await nextFrame(this.video); while (turn === this.turn && performance.now() - this.usedAt < this.intervalMs - 17);
    if (turn !== this.turn || connection !== this.connection) return;
    const { canvas, video } = this;
    [this.usedAt, this.takenAt] = [performance.now(), takenAt];
    const scale = Math.min(1, WIDTH / video.videoWidth);
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(video, 0, 0, canvas.width, canvas.height);
    const jpeg = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    this.codedAt = connection.heard = performance.now();
    connection.isDue = true;
    connection.send(jpeg);
  }
}

// When the camera took its next frame, as soon as that is there.
function nextFrame(video) {
  return new Promise((resolve) => {
    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback((now, frame) => resolve(frame.captureTime ?? now));
    } else {
      setTimeout(() => resolve(performance.now()), 33);
    }
  });
}

// [id, name] of each camera, phones' as "Front camera" and "Back camera"; browsers tell names once one is in use.
export async function listCameras() {
  const devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  const names = devices.map(({ label }, index) => {
    if (/\b(back|rear|environment)\b/i.test(label)) return "Back camera";
    if (/\b(front|user|facetime)\b/i.test(label)) return "Front camera";
    return label || `Camera ${index + 1}`;
  });
  return devices.map(({ deviceId }, index) => {
    const isOnly = names.indexOf(names[index]) === names.lastIndexOf(names[index]);
    return [deviceId, isOnly ? names[index] : `${names[index]} ${index + 1}`];
  });
}
