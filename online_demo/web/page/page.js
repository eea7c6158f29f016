"use strict";

const stream = document.getElementById("stream");
const video = document.getElementById("video");
const label = document.getElementById("label");
const button = document.getElementById("camera");
const status = document.getElementById("status");
const topList = document.getElementById("top");
const times = document.getElementById("times");

const WIDTH = 320, HEIGHT = 240;  // of the pictures sent: the published camera size
const EVERY = 2;  // every second camera frame is used, as published
const QUALITY = 0.9;
const RETRY_MS = 1000;

let events = null;   // results of the server's own source
let media = null;    // this browser's camera, while in use
let socket = null;   // its connection to the server

function show(result) {
  label.textContent = result.label || "";
  topList.replaceChildren(...(result.top || []).map(([name, probability]) => {
    const item = document.createElement("li");
    const bar = document.createElement("div");
    const text = document.createElement("span");
    const first = document.createElement("span"), second = document.createElement("span");
    bar.className = "bar";
    bar.style.width = `${100 * probability}%`;
    first.textContent = name;
    second.textContent = `${(100 * probability).toFixed(0)} %`;
    text.append(first, second);
    item.append(bar, text);
    return item;
  }));
  const rows = [
    ["Capture", result.capture_ms], ["Network", result.network_ms], ["Drawing", result.draw_ms],
    ["Transfer", result.transfer_ms],
  ].filter(([, value]) => value !== undefined).map(([name, value]) => [name, `${value.toFixed(1)} ms`]);
  if (result.fps !== undefined) rows.push(["Frames a second", result.fps.toFixed(1)]);
  times.replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}

function watchServer() {
  document.body.classList.add("watching");  // the label is in the picture
  stream.src = "stream.mjpg";
  events = new EventSource("results");
  events.onmessage = (event) => show(JSON.parse(event.data));
}

function leaveServer() {
  document.body.classList.remove("watching");
  events?.close();
  events = null;
  stream.removeAttribute("src");  // ends the transfer
}

async function startCamera() {
  if (!navigator.mediaDevices) {
    throw new Error("browsers give their camera to localhost and https pages only: forward the port, ssh -L 8000:localhost:8000 BOARD");
  }
  const size = { width: { ideal: WIDTH }, height: { ideal: HEIGHT } };
  media = await navigator.mediaDevices.getUserMedia({ video: size, audio: false });
  leaveServer();
  video.srcObject = media;
  stream.hidden = true;
  video.hidden = false;
  await video.play();
  button.textContent = "Back to the server's source";
  sendFrames(media);
}

function stopCamera() {
  media?.getTracks().forEach((track) => track.stop());
  media = null;
  socket?.close();
  video.srcObject = null;
  video.hidden = true;
  stream.hidden = false;
  button.textContent = "Use this browser's camera";
  show({});
  watchServer();
}

// One picture is under way at a time; frames that the camera gives meanwhile are left out, so that nothing piles up.
// A connection that ends is opened again, until the camera is switched off.
function sendFrames(camera) {
  const canvas = document.createElement("canvas");
  const scale = Math.min(1, WIDTH / video.videoWidth);
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let used = -Infinity, began, coded, doneAt = [];

  async function sendNext() {
    let presented;
    do presented = await nextFrame(); while (presented < used + EVERY);
    used = presented;
    began = performance.now();
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    const jpeg = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    coded = performance.now();
    connection.send(jpeg);
  }

  const url = new URL("camera", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  const connection = socket = new WebSocket(url);
  connection.onopen = sendNext;
  connection.onmessage = (event) => {
    if (media !== camera) return;
    const result = JSON.parse(event.data);
    status.textContent = result.error || "";
    if (result.error) return;  // the server closes the connection
    const done = performance.now();
    doneAt = [...doneAt.slice(-29), done];
    result.transfer_ms = Math.max(0, done - coded - result.network_ms - result.capture_ms);
    result.capture_ms += coded - began;
    if (doneAt.length > 1) result.fps = 1000 * (doneAt.length - 1) / (done - doneAt[0]);
    show(result);
    sendNext();
  };
  connection.onclose = () => {
    if (media !== camera) return;
    status.textContent ||= "The connection to the server is broken; trying again";
    setTimeout(() => { if (media === camera) sendFrames(camera); }, RETRY_MS);
  };
}

// The number of camera frames presented so far, once there is a new one.
let counted = 0;
function nextFrame() {
  return new Promise((resolve) => {
    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback((_, frame) => resolve(frame.presentedFrames));
    } else {
      setTimeout(() => resolve(counted++), 33);
    }
  });
}

async function toggleCamera() {
  button.disabled = true;
  status.textContent = "";
  try {
    if (media) stopCamera(); else await startCamera();
  } catch (error) {
    status.textContent = error.message;
  }
  button.disabled = false;
}

button.addEventListener("click", toggleCamera);
watchServer();
if (location.hash === "#camera") toggleCamera();  // a link that begins with this browser's camera
