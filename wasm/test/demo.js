// Drives the demo in headless Chromium: `node test/demo.js [SCREENSHOT]`. $CHROMIUM is the browser, by default `chromium`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

const [screenshot] = process.argv.slice(2);
const server = spawn('python3', [fileURLToPath(new URL('../demo/serve.py', import.meta.url)), '0']);
const address = String(await once(server.stdout, 'data').then(([line]) => line)).trim();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  const outside = [];
  page.on('request', (request) => !/^(data|blob):/.test(request.url()) && !request.url().startsWith(address)
    && outside.push(request.url()));
  await page.goto(address);
  await page.waitForSelector('#run:not([disabled])');

  // SmolLM2's output in both layers, and weights of a token that sum to 1.
  const number = (selector, name) => page.$eval(selector, (element, name) => Number(element.dataset[name]), name);
  for (const layer of ['00', '14']) {
    await page.click(`#layers button[value="${layer}"]`);
    await page.waitForSelector(`#layers button[value="${layer}"][aria-checked=true]`);
    const difference = await number('#error', 'value');
    assert.ok(difference > 0 && difference < 2e-6, `layer ${layer}: ${difference}`);
  }
  for (const head of [9, 4]) {
    await page.click(`#heads [aria-label="Query head ${head}"]`);
    assert.match(await page.textContent('#caption'), new RegExp(`^In head ${head}, road looks at`));
    assert.ok(Math.abs(await number('#caption', 'sum') - 1) < 1e-5);
  }
  await page.click('#prompt button:nth-child(17)');
  assert.match(await page.textContent('#caption'), /, river looks at/);
  assert.equal(await page.$$eval('#prompt .later', (later) => later.length), 21);

  // The race: every module, both phases, SIMD ahead of scalar.
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  await page.click('#run');
  await page.waitForSelector('#race[data-state=done]', { timeout: 120_000 });
  const bars = await page.$$eval('.bar', (bars) => bars.map(({ parentNode, dataset }) =>
    ({ phase: parentNode.id, name: dataset.name, best: Number(dataset.best), difference: Number(dataset.difference) })));
  console.table(bars);
  assert.equal(bars.length, 8, 'three levels and threads, two phases');
  for (const { name, best, difference } of bars) assert.ok(best > 0 && difference < 1e-5, `${name}: ${best} ms, ${difference}`);
  for (const phase of ['prefill', 'decode']) {
    const [scalar, simd] = bars.filter((bar) => bar.phase === phase);
    assert.ok(simd.best < scalar.best, `${phase}: SIMD ${simd.best} ms, scalar ${scalar.best} ms`);
  }
  assert.equal(await page.$$eval('#roof circle', (points) => points.length), 8);
  assert.deepEqual(errors, []);
  assert.deepEqual(outside, [], 'no network');
  if (screenshot) {
    await page.screenshot({ path: screenshot, fullPage: true });
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.setViewportSize({ width: 420, height: 900 });
    await page.waitForTimeout(300);
    await page.screenshot({ path: screenshot.replace('.png', '-dark.png'), fullPage: true });
  }
  console.log('the demo passed');
} finally {
  await browser.close();
  server.kill();
}
