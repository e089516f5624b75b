"use strict";
const STATE_EVERY_MS = 1000, RETRY_MS = 1000, RAIN_LIGHT = 0.6;
const tiles = new Map();

function tileOf(name) {
  if (tiles.has(name)) return tiles.get(name);
  const node = document.getElementById("tile").content.firstElementChild.cloneNode(true);
  node.querySelector(".name").textContent = name;
  node.dataset.camera = name;
  const divider = node.querySelector(".divider"), pictures = node.querySelector(".pictures");
  divider.setAttribute("aria-label", `${name}: divider between before and after`);
  divider.addEventListener("input", () => pictures.style.setProperty("--at", `${divider.value}%`));
  node.querySelector(".before").alt = `${name} before`;
  node.querySelector(".after").alt = `${name} after`;
  document.getElementById("tiles").append(node);
  const tile = { node, gone: false };
  tiles.set(name, tile);
  show(name, tile);
  return tile;
}

const visible = () => document.visibilityState === "visible";
const pause = ms => new Promise(done => setTimeout(done, ms));

/* Pictures of one moment: the first answer says its number, the other side is asked for the same pair. */
async function show(name, tile) {
  let number = -1;
  const path = `/cameras/${encodeURIComponent(name)}.jpg`;
  while (!tile.gone) {
    try {
      if (!visible()) { await pause(RETRY_MS); continue; }
      const after = await fetch(`${path}?side=after&after=${number}`);
      if (!after.ok) { number = -1; await pause(RETRY_MS); continue; }
      number = Number(after.headers.get("X-Number"));
      const before = await fetch(`${path}?side=before&after=${number - 1}`);
      if (before.ok) await Promise.all([
        put(tile.node.querySelector(".after"), await after.blob()),
        put(tile.node.querySelector(".before"), await before.blob()),
      ]);
    } catch { number = -1; await pause(RETRY_MS); }
  }
}

async function put(image, blob) {
  const old = image.src, url = URL.createObjectURL(blob);
  image.src = url;
  await image.decode().catch(() => {});
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

function write(tile, camera) {
  const state = tile.node.querySelector(".state");
  state.textContent = camera.state;
  state.classList.toggle("running", camera.state === "running");
  const rain = camera.light > RAIN_LIGHT ? "rain" : "dry";
  const rows = {
    "frames/s": camera.fps.toFixed(1), "latency": `${Math.round(1000 * camera.latency_s)} ms`,
    "dropped": camera.dropped, "unprocessed": camera.passed, "reconnects": camera.reconnects,
    "rain": `${rain} (${camera.light.toFixed(2)})`, "size": camera.size[0] ? camera.size.join("x") : "not known yet",
  };
  const list = tile.node.querySelector("dl");
  list.replaceChildren(...Object.entries(rows).map(([name, value]) => {
    const row = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name; text.textContent = value; row.append(term, text);
    return row;
  }));
  const error = tile.node.querySelector(".error");
  if (error.textContent !== camera.error) error.textContent = camera.error;
  tile.node.querySelector(".incidents").replaceChildren(...camera.incidents.slice().reverse().map(([at, words]) => {
    const item = document.createElement("li");
    item.textContent = `${at.slice(11, 19)} ${words}`;
    return item;
  }));
  const [width, height] = camera.size;
  if (width && height) tile.node.querySelector(".pictures").style.aspectRatio = `${width} / ${height}`;
}

async function watch() {
  const summary = document.getElementById("summary");
  for (;;) {
    try {
      const answer = await fetch("/state");
      if (!answer.ok) throw new Error(answer.statusText);
      const cameras = await answer.json(), names = Object.keys(cameras);
      for (const name of names) write(tileOf(name), cameras[name]);
      for (const [name, tile] of tiles) if (!(name in cameras)) { tile.gone = true; tile.node.remove(); tiles.delete(name); }
      const running = names.filter(name => cameras[name].state === "running").length;
      summary.textContent = `${running} of ${names.length} cameras running`;
    } catch { summary.textContent = "the server does not answer; trying again"; }
    await pause(STATE_EVERY_MS);
  }
}
watch();
