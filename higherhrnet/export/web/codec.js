// The bottom-up codec (methods/bottom_up) after the graph: candidates and small maps → people.
// Arrays are flat and row by row; (H, W) shapes, (x, y) points, as in the package.

const ABSENT = 0, REFINED = 1, SEEN = 2;
const REACH = 1.5; // grouping.py
const SMALLEST = 0.05;
const FAINT = 1e-10;

export class Codec {
  constructor(model) {
    this.codec = model.predictor.codec;
    this.augmentation = model.predictor.augmentation;
    this.skeleton = model.skeleton;
    this.duplicate = model.operating_point.duplicate;
    this.joints = model.skeleton.joints.length;
    this.order = model.skeleton.grouping_order.map((name) => model.skeleton.joints.indexOf(name));
  }

  // geometry.fit_view and fit_map, or fit_inside for a network of one size.
  fit(image, map = null) {
    const [height, width] = image;
    let view = this.augmentation.shape;
    if (!view) {
      const unit = up64(this.augmentation.input_size);
      const long = up64((unit / Math.min(height, width)) * Math.max(height, width));
      view = width < height ? [long, unit] : [unit, long];
    }
    const wide = (view[1] / view[0]) * height;
    const extent = this.augmentation.shape ? Math.max(width, wide) : width < height ? width : wide;
    const shape = map ?? view;
    const center = [Math.floor(width / 2 + 0.5), Math.floor(height / 2 + 0.5)];
    return { view, shape, center, scale: shape[1] / extent };
  }

  // ImageData → (H, W, 3) bytes, bilinear, black beyond the image.
  preprocess(pixels) {
    const { width, height, data } = pixels;
    const { view, center, scale } = this.fit([height, width]);
    const out = new Uint8Array(view[0] * view[1] * 3);
    for (let y = 0; y < view[0]; y++) {
      const sy = (y - view[0] / 2) / scale + center[1];
      const y0 = Math.floor(sy), wy = sy - y0;
      for (let x = 0; x < view[1]; x++) {
        const sx = (x - view[1] / 2) / scale + center[0];
        const x0 = Math.floor(sx), wx = sx - x0;
        for (let c = 0; c < 3; c++) {
          let value = 0;
          for (const [yy, fy] of [[y0, 1 - wy], [y0 + 1, wy]]) {
            if (fy === 0 || yy < 0 || yy >= height) continue;
            for (const [xx, fx] of [[x0, 1 - wx], [x0 + 1, wx]]) {
              if (fx === 0 || xx < 0 || xx >= width) continue;
              value += fy * fx * data[4 * (yy * width + xx) + c];
            }
          }
          out[3 * (y * view[1] + x) + c] = Math.round(value);
        }
      }
    }
    return { data: out, height: view[0], width: view[1] };
  }

  // The graph's outputs → people of an image (H, W), in its pixels, without duplicates.
  decode(outputs, image) {
    const maps = new Maps(outputs, this);
    const people = this.assemble(maps, this.group(maps));
    if (this.codec.refine) this.refine(maps, people);
    const { center, scale } = this.fit(image, maps.shape);
    for (const person of people) {
      const mean = person.tags.reduce((sum, tag) => sum.map((s, t) => s + tag[t]), zeros(maps.depth));
      person.tag = mean.map((value) => value / Math.max(person.tags.length, 1));
      for (let k = 0; k < this.joints; k++) {
        if (!person.visibility[k]) continue;
        const [x, y] = person.xy[k];
        const at = [(x - maps.shape[1] / 2) / scale + center[0], (y - maps.shape[0] / 2) / scale + center[1]];
        const inside = at[0] >= -0.5 && at[1] >= -0.5 && at[0] <= image[1] - 0.5 && at[1] <= image[0] - 0.5;
        if (inside) person.xy[k] = at;
        else person.visibility[k] = ABSENT;
      }
    }
    return this.withoutDuplicates(people.filter((person) => person.visibility.some(Boolean)))
      .sort((a, b) => b.score - a.score)
      .map((person) => this.describe(person));
  }

  describe(person) {
    const keypoints = [];
    const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
    for (let k = 0; k < this.joints; k++) {
      if (!person.visibility[k]) {
        keypoints.push(0, 0, 0);
        continue;
      }
      keypoints.push(...person.xy[k], person.scores[k]);
      for (const axis of [0, 1]) {
        low[axis] = Math.min(low[axis], person.xy[k][axis]);
        high[axis] = Math.max(high[axis], person.xy[k][axis]);
      }
    }
    const bbox = [...low, high[0] - low[0], high[1] - low[1]];
    return { category_id: 1, keypoints, bbox, score: person.score, visibility: person.visibility, tag: person.tag };
  }

  // grouping.group: members are {joint: candidate}.
  group(maps) {
    const { grouping } = this.codec;
    const members = [];
    const diagonal = Math.hypot(...maps.shape);
    for (const joint of this.order) {
      const found = maps.peaks[joint];
      if (!found.length) continue;
      const count = Math.min(members.length, grouping.max_compared);
      if (grouping.only_compared && count && count === grouping.max_compared) continue;
      const assigned = found.map(() => -1);
      let visits = found.map((_, candidate) => candidate);
      if (count) {
        const people = members.slice(0, count).map((member) => [...member].map(([j, c]) => maps.peaks[j][c]));
        const distance = found.map((peak) => people.map((person) => apart(peak.tags, meanOf(person.map((p) => p.tags)))));
        const cost = distance.map((row, m) => row.map((d) => (grouping.use_score ? 100 * even(d) - found[m].score : d)));
        if (grouping.distance_weight) {
          found.forEach((peak, m) => people.forEach((person, g) => {
            const penalty = grouping.distance_weight * excess(peak.xy, person.map((p) => p.xy), diagonal);
            distance[m][g] += penalty;
            cost[m][g] += (grouping.use_score ? 100 : 1) * penalty;
          }));
        }
        const strength = people.map((person) => person.reduce((sum, p) => sum + p.score, 0));
        const pairs = assign(cost, distance, found.map((p) => p.score), strength, grouping.assign);
        visits = [];
        for (const [candidate, person] of pairs) {
          const near = person < count && distance[candidate][person] < grouping.tag_threshold;
          assigned[candidate] = near ? person : -1;
          visits.push(candidate);
        }
      }
      for (const candidate of visits) {
        if (assigned[candidate] < 0) members.push(new Map([[joint, candidate]]));
        else members[assigned[candidate]].set(joint, candidate);
      }
    }
    return members;
  }

  assemble(maps, members) {
    let people = members.map((member) => {
      const person = { xy: [], scores: zeros(this.joints), visibility: zeros(this.joints), tags: [] };
      for (const [joint, candidate] of member) {
        const peak = maps.peaks[joint][candidate];
        person.xy[joint] = peak.xy;
        person.scores[joint] = peak.score;
        person.visibility[joint] = SEEN;
        person.tags.push(peak.tags);
      }
      person.score = person.scores.reduce((sum, score) => sum + score, 0) / this.joints;
      return person;
    });
    const most = this.codec.max_detections;
    if (most && people.length > most) {
      const kept = new Set([...people].sort((a, b) => b.score - a.score).slice(0, most));
      people = people.filter((person) => kept.has(person));
    }
    return people;
  }

  // grouping.fill_missing_joints, by a scan of the whole map.
  refine(maps, people) {
    const means = people.map((person) => meanOf(person.tags));
    for (let joint = 0; joint < this.joints; joint++) {
      const missing = people.map((_, n) => n).filter((n) => people[n].scores[joint] === 0);
      if (!missing.length) continue;
      const heatmap = maps.heatmap(joint);
      const tags = maps.tagMaps(joint);
      for (const n of missing) {
        let best = -Infinity, at = 0;
        for (let i = 0; i < heatmap.length; i++) {
          if (heatmap[i] <= best) continue; // a distance only lowers it
          let squares = 0;
          for (let t = 0; t < tags.length; t++) squares += (tags[t][i] - means[n][t]) ** 2;
          const value = heatmap[i] - even(Math.sqrt(squares));
          if (value > best) [best, at] = [value, i];
        }
        if (heatmap[at] <= 0) continue;
        people[n].xy[joint] = maps.locate(heatmap, at);
        people[n].scores[joint] = heatmap[at];
        people[n].visibility[joint] = REFINED;
      }
    }
  }

  // operating_point.without_duplicates.
  withoutDuplicates(people) {
    if (people.length < 2) return people;
    for (const person of people) person.area = areaOf(person);
    const rest = [...people].sort((a, b) => b.score - a.score);
    const kept = new Set();
    while (rest.length) {
      const first = rest.shift();
      kept.add(first);
      for (let i = rest.length - 1; i >= 0; i--) {
        const near = this.closeness(first, rest[i], (first.area + rest[i].area) / 2);
        const counted = near.filter((_, k) => rest[i].visibility[k] === SEEN);
        const alike = counted.reduce((sum, c) => sum + c, 0) / Math.max(counted.length, 1);
        if (alike > this.duplicate) rest.splice(i, 1);
      }
    }
    const left = people.filter((person) => kept.has(person));
    return left.filter((person) => {
      const seen = person.visibility.filter((v) => v === SEEN).length;
      if (3 * seen > this.joints) return true;
      const present = person.visibility.filter((v) => v > ABSENT).length;
      return !left.some((better) => {
        if (better.score <= person.score) return false;
        const near = this.closeness(person, better, person.area);
        const shared = near.filter((c, k) => c > 0.9 && better.visibility[k] && person.visibility[k]).length;
        return 2 * shared >= present;
      });
    });
  }

  closeness(one, other, area) {
    return this.skeleton.sigmas.map((sigma, k) => {
      const a = one.visibility[k] ? one.xy[k] : [0, 0];
      const b = other.visibility[k] ? other.xy[k] : [0, 0];
      const distance = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2;
      return Math.exp(-distance / (2 * sigma) ** 2 / (area + Number.EPSILON) / 2);
    });
  }

  // The highest of all heatmaps over the image, gray.
  heatmap(outputs, image) {
    return this.overlay(outputs, image, (value) => {
      const gray = Math.round(255 * Math.min(Math.max(value.score, 0), 1));
      return [gray, gray, gray];
    });
  }

  // Tags as hues, as bright as the highest heatmap.
  tagMap(outputs, image) {
    const tags = outputs.tags.data.slice().sort();
    const low = tags[Math.floor(0.02 * tags.length)], high = tags[Math.floor(0.98 * tags.length)];
    return this.overlay(outputs, image, (value) => {
      const part = Math.min(Math.max((value.tag - low) / Math.max(high - low, 1e-6), 0), 1);
      return rgbOf(300 * part, Math.min(Math.max(value.score, 0.05), 1));
    });
  }

  overlay(outputs, image, color) {
    const [, joints, height, width] = outputs.heatmaps.dims;
    const [, channels, th, tw] = outputs.tags.dims;
    const { center, scale } = this.fit(image, [height, width]);
    const size = [Math.max(1, Math.round(image[0] * scale)), Math.max(1, Math.round(image[1] * scale))];
    const out = new ImageData(size[1], size[0]);
    for (let y = 0; y < size[0]; y++) {
      for (let x = 0; x < size[1]; x++) {
        const mx = clamp(Math.round(x - center[0] * scale + width / 2), 0, width - 1);
        const my = clamp(Math.round(y - center[1] * scale + height / 2), 0, height - 1);
        let joint = 0, score = -Infinity;
        for (let k = 0; k < joints; k++) {
          const value = outputs.heatmaps.data[(k * height + my) * width + mx];
          if (value > score) [joint, score] = [k, value];
        }
        const channel = channels % joints ? 0 : joint;
        const ty = Math.floor((my * th) / height), tx = Math.floor((mx * tw) / width);
        const tag = outputs.tags.data[(channel * th + ty) * tw + tx];
        out.data.set([...color({ score, tag }), 255], 4 * (y * size[1] + x));
      }
    }
    return out;
  }
}

// Candidates of the graph, and its maps as aggregation would have enlarged them.
class Maps {
  constructor(outputs, owner) {
    const { codec, joints } = owner;
    this.codec = codec;
    this.small = outputs.heatmaps;
    this.tags = outputs.tags;
    const [, , height, width] = this.small.dims;
    this.projects = owner.augmentation.project;
    const stride = codec.heads[0].stride;
    this.shape = this.projects ? [height * stride, width * stride] : [height, width];
    this.depth = outputs.candidate_tags.dims[3];
    const most = outputs.scores.dims[2];
    const factor = this.projects ? 1 : 1 / stride; // the graph's points are pixels of its input
    const { scores, points, candidate_tags: tags } = outputs;
    this.peaks = Array.from({ length: joints }, (_, joint) => {
      const found = [];
      for (let m = 0; m < most; m++) {
        const i = joint * most + m;
        if (!(scores.data[i] > codec.threshold)) break;
        found.push({
          score: scores.data[i],
          xy: [points.data[2 * i] * factor, points.data[2 * i + 1] * factor],
          tags: [...tags.data.subarray(i * this.depth, (i + 1) * this.depth)],
        });
      }
      return found;
    });
  }

  // (H W) of a joint.
  heatmap(joint) {
    const [, , height, width] = this.small.dims;
    const from = this.small.data.subarray(joint * height * width, (joint + 1) * height * width);
    const large = resize(from, [height, width], this.shape);
    return this.codec.blur_sigma ? blur(large, this.shape, this.codec.blur_sigma) : large;
  }

  // T of (H W), of a joint.
  tagMaps(joint) {
    const [, channels, th, tw] = this.tags.dims;
    const joints = this.peaks.length;
    const step = channels % joints ? 1 : joints;
    const found = [];
    for (let first = 0; first < channels; first += step) {
      const channel = first + (step === 1 ? 0 : joint);
      const from = this.tags.data.subarray(channel * th * tw, (channel + 1) * th * tw);
      const finest = resize(from, [th, tw], this.small.dims.slice(2));
      found.push(resize(finest, this.small.dims.slice(2), this.shape));
    }
    return found;
  }

  // heatmaps.SubPixel: a pixel → a point.
  locate(heatmap, at) {
    const [height, width] = this.shape;
    const x = at % width, y = Math.floor(at / width);
    const value = (dx, dy) => heatmap[clamp(y + dy, 0, height - 1) * width + clamp(x + dx, 0, width - 1)];
    let offset;
    if (this.codec.decoding === "parabola") {
      const log = (dx, dy) => Math.log(Math.max(value(dx, dy), FAINT));
      const along = (low, middle, high) => -((high - low) / 2) / Math.min(high + low - 2 * middle, -FAINT);
      offset = [along(log(-1, 0), log(0, 0), log(1, 0)), along(log(0, -1), log(0, 0), log(0, 1))];
      if (offset.some((step) => !(Math.abs(step) <= 1))) offset = [0, 0];
    } else {
      offset = [value(1, 0) > value(-1, 0) ? 0.25 : -0.25, value(0, 1) > value(0, -1) ? 0.25 : -0.25];
    }
    const stride = this.projects ? 1 : this.codec.heads[0].stride;
    const center = this.codec.encoding === "truncated" ? 0.5 : 0.5 - 0.5 / stride;
    return [x + offset[0] + center, y + offset[1] + center];
  }
}

// grouping.py's solvers: pairs of candidate and person, persons beyond the last one are new.
function assign(cost, distance, score, strength, name) {
  const people = strength.length;
  const columns = Math.max(cost.length, people);
  const strongest = Math.max(...strength, 1);
  const byScore = name === "hungarian_score_tiebreak";
  const total = cost.map((row, m) => {
    const full = new Array(columns).fill(1e6);
    row.forEach((value, g) => {
      const near = Math.min(distance[m][g], 100);
      const tie = byScore ? (-1e-3 * score[m] * strength[g]) / strongest + 1e-6 * near : 1e-3 * near;
      full[g] = Math.min(value, 1e6) + tie;
    });
    return full;
  });
  return shortestAugmentingPaths(total).map((column, row) => [row, column]);
}

// assignment.py: the column of each row, at most as many rows as columns.
export function shortestAugmentingPaths(cost) {
  const width = cost[0]?.length ?? 0;
  const rowPrice = zeros(cost.length), columnPrice = zeros(width);
  const rowOf = new Array(width).fill(-1);
  for (let first = 0; first < cost.length; first++) {
    const shortest = new Array(width).fill(Infinity), from = new Array(width).fill(-1);
    const done = new Array(width).fill(false);
    let row = first, length = 0, column;
    for (;;) {
      column = -1;
      for (let j = 0; j < width; j++) {
        if (done[j]) continue;
        const via = length + cost[row][j] - rowPrice[row] - columnPrice[j];
        if (via < shortest[j]) [shortest[j], from[j]] = [via, row];
        if (column < 0 || shortest[j] < shortest[column]) column = j;
      }
      length = shortest[column];
      done[column] = true;
      if (rowOf[column] < 0) break;
      row = rowOf[column];
    }
    rowPrice[first] += length;
    for (let j = 0; j < width; j++) {
      if (!done[j] || j === column) continue;
      rowPrice[rowOf[j]] += length - shortest[j];
      columnPrice[j] -= length - shortest[j];
    }
    for (;;) {
      row = from[column];
      const before = rowOf.indexOf(row);
      rowOf[column] = row;
      if (row === first) break;
      column = before;
    }
  }
  return cost.map((_, row) => rowOf.indexOf(row));
}

function resize(from, [h, w], [height, width]) {
  if (h === height && w === width) return from;
  const axis = (size, source) => Array.from({ length: size }, (_, i) => {
    const at = Math.max((i + 0.5) * (source / size) - 0.5, 0);
    const low = Math.min(Math.floor(at), source - 1);
    return [low, Math.min(low + 1, source - 1), at - low];
  });
  const rows = axis(height, h), columns = axis(width, w);
  const out = new Float32Array(height * width);
  rows.forEach(([y0, y1, wy], y) => columns.forEach(([x0, x1, wx], x) => {
    const above = from[y0 * w + x0] * (1 - wx) + from[y0 * w + x1] * wx;
    const below = from[y1 * w + x0] * (1 - wx) + from[y1 * w + x1] * wx;
    out[y * width + x] = above * (1 - wy) + below * wy;
  }));
  return out;
}

function blur(map, [height, width], sigma) {
  const radius = Math.floor(3 * sigma);
  const taps = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const sum = taps.reduce((a, b) => a + b, 0);
  const mirror = (i, size) => (i < 0 ? -i : i >= size ? 2 * size - 2 - i : i);
  const once = new Float32Array(map.length), out = new Float32Array(map.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let total = 0;
      for (let i = -radius; i <= radius; i++) total += taps[i + radius] * map[y * width + mirror(x + i, width)];
      once[y * width + x] = total / sum;
    }
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let total = 0;
      for (let i = -radius; i <= radius; i++) total += taps[i + radius] * once[mirror(y + i, height) * width + x];
      out[y * width + x] = total / sum;
    }
  }
  return out;
}

function excess(point, joints, diagonal) {
  const nearest = Math.min(...joints.map((joint) => apart(point, joint)));
  const span = [0, 1].map((axis) => Math.max(...joints.map((j) => j[axis])) - Math.min(...joints.map((j) => j[axis])));
  return Math.max(nearest / Math.max(Math.hypot(...span), SMALLEST * diagonal, 1) - REACH, 0);
}

function areaOf(person) {
  const places = person.xy.filter((_, k) => person.visibility[k]);
  if (!places.length) return 100;
  const span = [0, 1].map((axis) => Math.max(...places.map((p) => p[axis])) - Math.min(...places.map((p) => p[axis])));
  return Math.max(span[0] * span[1], 0.1 * Math.max(...span) ** 2, 100);
}

function rgbOf(hue, value) {
  const channel = (n) => {
    const k = (n + hue / 60) % 6;
    return Math.round(255 * value * (1 - 0.86 * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}

const up64 = (side) => Math.floor((side + 63) / 64) * 64;
const zeros = (count) => new Array(count).fill(0);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const apart = (a, b) => Math.hypot(...a.map((value, i) => value - b[i]));
const meanOf = (rows) => rows[0].map((_, t) => rows.reduce((sum, row) => sum + row[t], 0) / rows.length);
// Half to even, as NumPy rounds.
const even = (value) => {
  const down = Math.floor(value);
  if (value - down !== 0.5) return Math.round(value);
  return down % 2 ? down + 1 : down;
};
