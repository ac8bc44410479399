// Opens a report in headless Chromium as a reader would, offline: pictures at three widths in light and dark, axe-core's
// findings, whatever it tried to fetch, and whether its 3D replays draw. Not part of the tests: it needs Chromium and npm.
//
//   npm install --prefix build/browser puppeteer-core axe-core
//   node checks/report.mjs runs/demo/report.html build/browser
//
// Exits with 1 where something was fetched, a script failed, a page is wider than its screen, or axe-core finds anything
// serious or critical.

import {createRequire} from "node:module";
import {mkdirSync, readFileSync} from "node:fs";
import {resolve} from "node:path";
import {pathToFileURL} from "node:url";

const [page, where = "build/browser", only] = process.argv.slice(2);
const here = createRequire(resolve(where, "node_modules", "x.js"));
const puppeteer = here("puppeteer-core");
const axe = readFileSync(here.resolve("axe-core/axe.min.js"), "utf8");
const shots = resolve(where, "screenshots");
mkdirSync(shots, {recursive: true});

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox", "--disable-background-networking"],
  protocolTimeout: 600000,
});
let faults = 0;
const fault = words => { faults++; console.log(`FAULT ${words}`); };

for (const scheme of ["light", "dark"])
  for (const width of [390, 820, 1440]) {
    if (only && only !== `${width}-${scheme}`) continue;
    const tab = await browser.newPage();
    tab.setDefaultTimeout(600000);
    tab.on("request", request => {
      if (!/^(file|data|blob|about):/.test(request.url())) fault(`fetches ${request.url().slice(0, 100)}`);
    });
    tab.on("pageerror", error => fault(`script: ${error.message ?? error}`));
    tab.on("console", message => { if (message.type() === "error") fault(`console: ${message.text().slice(0, 200)}`); });
    await tab.setViewport({width, height: 900, deviceScaleFactor: 1});
    await tab.emulateMediaFeatures([{name: "prefers-color-scheme", value: scheme}]);
    await tab.goto(pathToFileURL(resolve(page)).href, {waitUntil: "load"});
    const tall = await tab.evaluate(() => document.documentElement.scrollHeight);
    for (let top = 0; top < tall; top += 3000) { // software drawing repeats itself beyond 8192 pixels
      const clip = {x: 0, y: top, width, height: Math.min(3000, tall - top)};
      await tab.screenshot({path: `${shots}/${width}-${scheme}-${top / 3000}.png`, clip, captureBeyondViewport: true});
    }
    const over = await tab.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (over > 0) fault(`at ${width} the page is ${over} pixels too wide`);
    // Runs axe through the debugger, which the page's own policy does not bind.
    await tab.evaluate(axe);
    const found = await tab.evaluate(() => axe.run(document, {iframes: false, preload: false}));
    for (const one of found.violations) {
      const words = `${one.impact}: ${one.id}: ${one.nodes.length} x, ${one.nodes[0].html.slice(0, 140)}`;
      if (["serious", "critical"].includes(one.impact)) fault(`axe ${words}`); else console.log(`axe ${words}`);
    }
    console.log(`${width} ${scheme}: ${found.passes.length} rules of axe ${axe.match(/v(\d+\.\d+\.\d+)/)?.[1] ?? ""} passed`);
    await tab.close();
  }

if (!only || only === "replay") {
  const tab = await browser.newPage();
  tab.setDefaultTimeout(600000);
  tab.on("request", request => {
    if (!/^(file|data|blob|about):/.test(request.url())) fault(`replay fetches ${request.url().slice(0, 100)}`);
  });
  tab.on("console", message => { if (message.type() === "error") console.log(`replay console: ${message.text().slice(0, 300)}`); });
  await tab.setViewport({width: 820, height: 700});
  await tab.goto(pathToFileURL(resolve(page)).href, {waitUntil: "load"});
  const button = await tab.$("button.replay");
  if (button) {
    await button.scrollIntoView();
    await tab.evaluate(element => element.click(), button);
    await new Promise(done => setTimeout(done, Number(process.env.WAIT ?? 20000)));
    const frame = await tab.$(".stage iframe");
    const inside = await frame.contentFrame();
    await inside.evaluate(() => document.querySelector(".mantine-Notification-closeButton")?.click()); // "software WebGL"
    await new Promise(done => setTimeout(done, 2000));
    const canvas = await inside.$("canvas");
    if (!canvas) fault("the 3D replay has no canvas"); else console.log("the 3D replay has a canvas");
    await tab.screenshot({path: `${shots}/replay.png`});
  } else console.log("no 3D replay in this report");
}
await browser.close();
console.log(faults ? `${faults} faults` : "no faults");
process.exit(faults ? 1 : 0);
