// The page: it watches the demo's own source, or sends this device's camera, which a link that ends with #camera starts.

import { Camera, insecureProblem, listCameras, problem, UNPLUGGED } from "./camera.js";
import { Connection } from "./connection.js";
import { forgetAnswers, showAbout, showAnswer, showState } from "./view.js";

const NO_SOURCE = "The demo has no camera of its own: use this device's.";

const byId = (id) => document.getElementById(id);
const picture = byId("picture"), video = byId("video");
const cameraButton = byId("camera"), pauseButton = byId("pause"), fullButton = byId("full");
const chooser = byId("chooser"), device = byId("device");

let watch = null;        // the connection to the demo's own source, while that is shown
let usesCamera = false;
let isPaused = false;
let serverHasSource = true;
let cameraProblem = "";  // stays on the page until the camera is tried again

const camera = new Camera(video, {
  onstate: setState,
  onmessage: receive,
  onend: () => { leaveCamera(UNPLUGGED); },
});

function setState(state, notice) {
  if (isPaused) showState("paused", "");
  else if (state === "live" && !usesCamera && !serverHasSource) showState("ready", cameraProblem || NO_SOURCE);
  else showState(state, notice || cameraProblem);
}

function receive(message) {
  if (message instanceof Blob) return showPicture(message);
  if (message.kind === "answer") return showAnswer(message);
  serverHasSource = message.source !== null;
  showAbout(message);
  nameButtons();
}

async function showPicture(jpeg) {
  const url = URL.createObjectURL(jpeg);
  picture.src = url;
  try {
    await picture.decode();
    picture.hidden = watch === null;
  } catch { /* another picture, or the camera, has taken its place */ }
  URL.revokeObjectURL(url);
  watch?.send("shown");
}

function nameButtons() {
  const back = serverHasSource ? "Back to the server's picture" : "Stop the camera";
  cameraButton.textContent = usesCamera ? back : "Use this device's camera";
  pauseButton.textContent = isPaused ? "Continue" : "Pause";
  pauseButton.hidden = !usesCamera && !serverHasSource;
}

function watchServer() {
  watch = new Connection("watch", setState, receive);
}

function stopWatching() {
  watch?.close();
  watch = null;
}

async function startCamera(deviceId) {
  if (!navigator.mediaDevices) return report(insecureProblem());
  try {
    await camera.start(deviceId);
  } catch (error) {
    return leaveCamera(problem(error));
  }
  stopWatching();
  picture.hidden = true;
  isPaused = false;
  usesCamera = true;
  video.hidden = false;
  forgetAnswers();
  const cameras = await listCameras();
  device.replaceChildren(...cameras.map(([id, name]) => new Option(name, id, false, id === camera.deviceId)));
  chooser.hidden = cameras.length < 2;
  nameButtons();
}

// Back to the server's source, with the reason if it is not the user's wish.
function leaveCamera(reason = "") {
  camera.stop();
  usesCamera = isPaused = false;
  video.hidden = chooser.hidden = true;
  forgetAnswers();
  nameButtons();
  report(reason);
  if (!watch) watchServer();
}

function report(reason) {
  cameraProblem = reason;
  byId("notice").textContent = reason;
}

async function toggleCamera() {
  cameraButton.disabled = true;
  report("");
  if (usesCamera) leaveCamera();
  else await startCamera();
  cameraButton.disabled = false;
  cameraButton.focus();
}

async function togglePause() {
  isPaused = !isPaused;
  if (isPaused) {
    if (usesCamera) camera.pause();
    else stopWatching();
    showState("paused", "");
  } else {
    showState("reconnecting", "");
    if (usesCamera) await camera.resume();
    else watchServer();
  }
  nameButtons();
}

cameraButton.addEventListener("click", toggleCamera);
pauseButton.addEventListener("click", togglePause);
device.addEventListener("change", () => startCamera(device.value));
fullButton.addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else byId("stage").requestFullscreen();
});
fullButton.hidden = !document.fullscreenEnabled;  // as on iPhones
watchServer();
if (location.hash === "#camera") toggleCamera();
