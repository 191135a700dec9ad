// Drives a real Chromium through the page; the Python side starts servers and judges what is printed.
// node page.mjs '{"server": URL, "web": URL, "images": [...], "out": DIR, "chromium": PATH}'
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const job = JSON.parse(process.argv[2]);
const result = { errors: [], web: [] };
const browser = await chromium.launch({
  executablePath: job.chromium,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
  ],
});

async function open(url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(240_000);
  page.on("pageerror", (error) => result.errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") result.errors.push(message.text());
  });
  await page.goto(url);
  await page.waitForSelector("body[data-ready]");
  return page;
}

const people = async (page) => {
  await page.waitForFunction(() => /^\d+ (person|people)$/.test(document.querySelector("#summary").textContent));
  return Number.parseInt(await page.textContent("#summary"), 10);
};
const slide = (page, id, value) =>
  page.$eval(`#${id}`, (input, to) => {
    input.value = to;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }, value);
const print = (page) => page.$eval("#view", (canvas) => canvas.toDataURL().length);
const shot = (page, name) => page.screenshot({ path: `${job.out}/${name}.png`, fullPage: true });
const answer = async (page) => {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#json")]);
  return JSON.parse(readFileSync(await download.path(), "utf8"));
};

if (job.server) {
  const page = await open(job.server);
  await page.click("#example");
  result.example = await people(page);
  await shot(page, "example");
  result.times = await page.$$eval("#times th", (cells) => cells.map((cell) => cell.textContent));
  await slide(page, "person", 0);
  result.all = await people(page);
  await slide(page, "person", 1);
  result.none = await people(page);
  await slide(page, "person", 0.2);
  const plain = await print(page);
  for (const name of ["show-heatmap", "show-tags", "tag-colors", "show-refined", "show-poses"]) {
    await page.click(`#${name}`);
    await people(page);
    result[name] = (await print(page)) !== plain;
    await shot(page, name);
    await page.click(`#${name}`);
    await people(page);
  }
  await page.click("#compare");
  await page.waitForFunction(() => document.querySelector("#other-caption").textContent !== "");
  result.compare = await page.textContent("#other-caption");
  await shot(page, "compare");
  await page.click("#compare");
  await people(page);
  result.saved = (await answer(page)).people.length;
  // A dropped photograph, and a dropped text.
  const drop = (bytes, type) =>
    page.evaluate(([data, kind]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(data)], "dropped", { type: kind }));
      document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
    }, [[...bytes], type]);
  await drop(readFileSync(job.images[1]), "image/png");
  await page.waitForFunction(() => document.querySelector("#summary").textContent === "Looking …");
  result.dropped = await people(page);
  await drop(Buffer.from("no image"), "text/plain");
  await page.waitForSelector("#error:not([hidden])");
  result.error = await page.textContent("#error");
  // By keyboard alone.
  const order = [];
  for (let i = 0; i < 18; i++) {
    await page.keyboard.press("Tab");
    order.push(await page.evaluate(() => document.activeElement.id));
  }
  result.tab = order;
  // A camera.
  await page.click("#webcam");
  await page.waitForSelector("#webcam[aria-pressed=true]");
  result.webcam = await people(page);
  await shot(page, "webcam");
  await page.click("#webcam");
  await page.waitForSelector("#webcam[aria-pressed=false]");
  const phone = await open(job.server, { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });
  await phone.click("#example");
  await people(phone);
  await shot(phone, "phone");
  result.phone = await phone.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
}

if (job.web) {
  const page = await open(job.web);
  const origin = new URL(job.web).origin;
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !url.startsWith("data:") && !url.startsWith("blob:")) result.errors.push(`left: ${url}`);
  });
  for (const image of job.images) {
    await page.setInputFiles("#file", image);
    await page.waitForFunction(() => document.querySelector("#summary").textContent === "Looking …");
    await people(page);
    result.web.push(await answer(page));
  }
  await page.click("#show-tags");
  await people(page);
  await shot(page, "web-tags");
  await page.click("#show-tags");
  await people(page);
  await shot(page, "web");
}

await browser.close();
console.log(JSON.stringify(result));
