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
  const shown = await page.getAttribute('#heads [aria-checked=true]', 'aria-label');
  for (const head of ['Query head 9', 'Query head 4', shown]) {
    await page.click(`#heads [aria-label="${head}"]`);
    assert.match(await page.textContent('#caption'), new RegExp(`^In ${head.slice(6)}, road looks at`));
    assert.ok(Math.abs(await number('#caption', 'sum') - 1) < 1e-5);
  }
  await page.click('#prompt button:nth-child(17)');
  assert.match(await page.textContent('#caption'), /, river looks at/);
  assert.equal(await page.$$eval('#prompt .later', (later) => later.length), 21);

  // 16-bit floats are typed arrays of numbers, on the module's memory, in an engine that has them.
  const half = await page.evaluate(async () => {
    const { load } = await import('./gqa/js/gqa.js');
    const gqa = await load();
    const kv = gqa.tensor('f16', [1, 1, 3, 4], new Float16Array(12).fill(0.5));
    const q = gqa.tensor('f16', [1, 2, 1, 4], [1, 2, 3, 4, 5, 6, 7, 8]);
    const { data } = gqa.attend({ q, k: kv, v: kv });
    return { isHalf: data instanceof Float16Array, inPlace: data.buffer === q.data.buffer, numbers: [...data] };
  });
  assert.deepEqual(half, { isHalf: true, inPlace: true, numbers: Array(8).fill(0.5) });

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
