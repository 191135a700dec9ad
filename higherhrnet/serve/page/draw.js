// People on a canvas: limbs by side, a dark rim, hollow rings for filled-in keypoints.

const COLORS = { left: "rgb(0,190,255)", right: "rgb(255,120,30)", center: "rgb(190,255,80)" };
const RIM = "rgb(20,20,20)";
const MOST = 1600; // pixels of a canvas's longer side

export function drawImage(canvas, image) {
  const scale = Math.min(1, MOST / Math.max(image.width, image.height));
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  canvas.dataset.scale = scale;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
}

// A tag's color among the tags of all people: near tags have near hues.
export function hueOf(tag, tags) {
  const low = Math.min(...tags);
  const high = Math.max(...tags);
  const part = high > low ? (tag - low) / (high - low) : 0.5;
  return `hsl(${Math.round(300 * part)} 90% 60%)`;
}

export function drawPeople(canvas, people, skeleton) {
  const context = canvas.getContext("2d");
  const scale = Number(canvas.dataset.scale);
  context.lineCap = "round";
  for (const person of [...people].reverse()) {
    const at = (k) => [person.keypoints[3 * k] * scale, person.keypoints[3 * k + 1] * scale];
    const there = person.visibility.map((value, k) => (value > 0 ? at(k) : null));
    const places = there.filter(Boolean);
    const span = (axis) => Math.max(...places.map((p) => p[axis])) - Math.min(...places.map((p) => p[axis]));
    const width = Math.max(2, Math.min(8, Math.max(span(0), span(1)) / 50));
    for (const outline of [true, false]) {
      for (const [a, b] of skeleton.limbs) {
        if (!there[a] || !there[b]) continue;
        const sure = person.visibility[a] === 2 && person.visibility[b] === 2;
        const side = [skeleton.sides[a], skeleton.sides[b]].find((name) => name !== "center") ?? "center";
        const mixed = new Set([skeleton.sides[a], skeleton.sides[b]]).size > 1 &&
          ![skeleton.sides[a], skeleton.sides[b]].includes("center");
        context.strokeStyle = outline ? RIM : person.color ?? COLORS[mixed ? "center" : side];
        context.lineWidth = (sure ? width : width / 2) + (outline ? 2 : 0);
        context.beginPath();
        context.moveTo(...there[a]);
        context.lineTo(...there[b]);
        context.stroke();
      }
    }
    there.forEach((place, k) => {
      if (!place) return;
      const color = person.color ?? COLORS[skeleton.sides[k]];
      const hollow = person.visibility[k] === 1;
      context.beginPath();
      context.arc(...place, width * 0.9, 0, 2 * Math.PI);
      context.strokeStyle = RIM;
      context.lineWidth = hollow ? 3.5 : 2;
      context.stroke();
      if (hollow) {
        context.strokeStyle = color;
        context.lineWidth = 1.5;
        context.stroke();
      } else {
        context.fillStyle = color;
        context.fill();
      }
    });
  }
}
