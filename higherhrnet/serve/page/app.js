// The page: an image goes to a backend, people come back and are drawn. Two backends give the same:
// the server's HTTP interface, or the network in this browser (backend.js of an exported page).
import { drawImage, drawPeople, hueOf } from "./draw.js";

const $ = (id) => document.getElementById(id);
const state = { image: null, answers: {}, models: [], model: null, live: null, ticket: 0 };

const server = {
  local: false,
  async models() {
    return (await fetch("model")).json();
  },
  async predict(blob, { method, preset, fields }) {
    const query = new URLSearchParams({ method, preset, min_score: 0, min_keypoint_score: 0, fields: fields.join(",") });
    const response = await fetch(`predict?${query}`, { method: "POST", body: blob });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error);
    return body;
  },
};
let backend = server;

async function start() {
  if (document.documentElement.dataset.backend === "local") {
    backend = (await import("./backend.js")).backend;
  }
  state.models = await backend.models((text) => ($("summary").textContent = text));
  state.model = state.models[0];
  $("about").textContent = backend.local
    ? `Keypoints of all people in an image, by ${state.model.name}, in this browser: nothing leaves your machine.`
    : `Keypoints of all people in an image, by ${state.model.name}.`;
  for (const preset of state.model.presets) $("preset").add(new Option(preset, preset));
  if (state.model.presets.includes("balanced")) $("preset").value = "balanced";
  $("preset").hidden = $("preset-label").hidden = state.model.presets.length < 2;
  $("compare-label").hidden = state.models.length < 2;
  takeLimits();
  $("summary").textContent = "No image yet.";
  document.body.dataset.ready = "true";
}

function limits() {
  return state.model.operating_points[$("preset").value] ?? state.model.operating_points.default;
}

function takeLimits() {
  const point = limits();
  $("person").value = point.person;
  $("joint").value = point.joint;
  showValues();
}

function showValues() {
  for (const name of ["person", "joint"]) $(`${name}-value`).value = Number($(name).value).toFixed(2);
}

function fail(error) {
  $("error").textContent = String(error?.message ?? error);
  $("error").hidden = false;
  $("summary").textContent = "";
}

async function load(blob) {
  stopWebcam();
  let image;
  try {
    image = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    return fail("This file is no image that the browser can show.");
  }
  state.image = image;
  state.blob = blob;
  state.answers = {};
  await look();
}

function wanted() {
  const fields = ["keypoints", "score", "bbox", "visibility", "tag", "seconds"];
  if ($("show-heatmap").checked) fields.push("heatmap");
  if ($("show-tags").checked) fields.push("tag_map");
  return fields;
}

async function look() {
  if (!state.image) return;
  const ticket = ++state.ticket; // a later image or setting makes this answer stale
  $("error").hidden = true;
  render();
  $("summary").textContent = "Looking …";
  const models = $("compare").checked ? state.models : [state.model];
  try {
    for (const model of models) {
      const preset = model === state.model ? $("preset").value : "default";
      const answer = await backend.predict(state.blob, { method: model.method, preset, fields: wanted() });
      if (ticket !== state.ticket) return;
      for (const key of ["heatmap", "tag_map"]) {
        if (typeof answer[key] === "string") answer[key] = await picture(answer[key]);
      }
      state.answers[model.method] = answer;
    }
  } catch (error) {
    if (ticket === state.ticket) fail(error);
    return;
  }
  render();
}

async function picture(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

// What the sliders and switches leave of an answer. The sliders are the first model's; scores of
// another method mean something else, and its own operating point decides.
function shown(answer, model) {
  const point = model === state.model ? limits() : model.operating_points.default;
  const [least, joint] =
    model === state.model ? [Number($("person").value), Number($("joint").value)] : [point.person, point.joint];
  // Filled-in keypoints are less sure than others of their score; the switch shows them all the same.
  const refined = $("show-refined").checked ? joint : point.refined;
  const tags = answer.people.flatMap((person) => person.tag?.slice(0, 1) ?? []);
  return answer.people
    .filter((person) => person.score >= least)
    .map((person) => {
      const visibility = person.visibility.map((value, k) => {
        if (value === 0) return 0;
        const limit = value === 1 ? Math.max(joint, refined) : joint;
        return person.keypoints[3 * k + 2] >= limit ? value : 0;
      });
      const color = $("tag-colors").checked && person.tag?.length ? hueOf(person.tag[0], tags) : null;
      return { ...person, visibility, color };
    })
    .filter((person) => person.visibility.some((value) => value > 0));
}

function render() {
  const main = state.answers[state.model?.method];
  const other = state.models.find((model) => model !== state.model);
  paint($("view"), main, state.model);
  const both = $("compare").checked && other;
  $("second").hidden = !both;
  if (both) paint($("other"), state.answers[other.method], other);
  $("json").disabled = !main;
  $("png").disabled = !state.image;
  if (!main) return;
  const people = shown(main, state.model).length;
  $("summary").textContent = `${people} ${people === 1 ? "person" : "people"}`;
  $("caption").textContent = both ? `${state.model.method}: ${people} people` : "";
  if (both && state.answers[other.method]) {
    $("other-caption").textContent = `${other.method}: ${shown(state.answers[other.method], other).length} people`;
  }
  showTimes(main.seconds ?? {});
}

function paint(canvas, answer, model) {
  if (!state.image) return;
  drawImage(canvas, state.image);
  if (!answer) return;
  const map = $("show-tags").checked ? answer.tag_map : $("show-heatmap").checked ? answer.heatmap : null;
  if (map) {
    const context = canvas.getContext("2d");
    context.save();
    context.globalAlpha = 0.75;
    context.drawImage(map, 0, 0, canvas.width, canvas.height);
    context.restore();
  }
  if ($("show-poses").checked) drawPeople(canvas, shown(answer, model), model.skeleton);
}

function showTimes(seconds) {
  const body = $("times").tBodies[0];
  body.replaceChildren();
  for (const [stage, value] of Object.entries(seconds)) {
    const row = body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = stage;
    row.append(head);
    row.insertCell().textContent = `${(1000 * value).toFixed(0)} ms`;
  }
}

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function startWebcam() {
  state.ticket++; // an answer for an earlier image comes too late
  $("webcam").disabled = true;
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = stream;
  await video.play();
  $("webcam").disabled = false;
  state.live = { stream, video };
  $("webcam").textContent = "Stop the webcam";
  $("webcam").setAttribute("aria-pressed", "true");
  const canvas = document.createElement("canvas");
  const live = state.live;
  while (state.live === live) {
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
    const image = await createImageBitmap(canvas);
    const preset = state.model.presets.includes("fast") ? "fast" : $("preset").value;
    try {
      const answer = await backend.predict(blob, { method: state.model.method, preset, fields: wanted() });
      for (const key of ["heatmap", "tag_map"]) {
        if (typeof answer[key] === "string") answer[key] = await picture(answer[key]);
      }
      if (state.live !== live) return;
      state.image = image;
      state.blob = blob;
      state.answers = { [state.model.method]: answer };
      $("error").hidden = true;
      render();
    } catch (error) {
      fail(error);
      await new Promise((done) => setTimeout(done, 1000));
    }
    await new Promise(requestAnimationFrame);
  }
}

function stopWebcam() {
  if (!state.live) return;
  for (const track of state.live.stream.getTracks()) track.stop();
  state.live = null;
  $("webcam").textContent = "Start the webcam";
  $("webcam").setAttribute("aria-pressed", "false");
}

$("file").addEventListener("change", (event) => {
  if (event.target.files[0]) load(event.target.files[0]);
});
$("example").addEventListener("click", async () => load(await (await fetch("example.jpg")).blob()));
$("webcam").addEventListener("click", () => {
  if (state.live) stopWebcam();
  else {
    startWebcam().catch((error) => {
      $("webcam").disabled = false;
      fail(`The webcam cannot be opened: ${error.message}`);
    });
  }
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("stage").classList.add("over");
  });
}
document.addEventListener("dragleave", () => $("stage").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file) load(file);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) load(file);
});
for (const name of ["person", "joint"]) {
  $(name).addEventListener("input", () => {
    showValues();
    render();
  });
}
for (const name of ["show-poses", "show-refined", "tag-colors"]) $(name).addEventListener("change", render);
for (const name of ["show-heatmap", "show-tags", "compare"]) $(name).addEventListener("change", look);
$("preset").addEventListener("change", () => {
  takeLimits();
  look();
});
$("json").addEventListener("click", () => {
  const { heatmap, tag_map, ...answer } = state.answers[state.model.method];
  save("poses.json", new Blob([JSON.stringify(answer, null, 1)], { type: "application/json" }));
});
$("png").addEventListener("click", () => $("view").toBlob((blob) => save("poses.png", blob)));

start().catch(fail);
