import { expect, test } from 'bun:test';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MODULE = join(import.meta.dir, '../../../src/mounts/bounded-log.ts');

test('a log stays below its bound, with its latest lines and those before in one other file', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'imgcred-log-'));
  const file = join(directory, 'log');
  const script = `
    const { boundedLog } = await import(${JSON.stringify(MODULE)});
    const write = boundedLog(${JSON.stringify(file)}, 1000);
    for (let n = 0; n < 100; n += 1) write(\`line \${n} \${'x'.repeat(40)}\\n\`);
  `;
  const log = openSync(file, 'a');
  try {
    const child = Bun.spawn([process.execPath, '-e', script], {
      stdin: 'ignore',
      stdout: 'ignore',
      stderr: log,
    });
    expect(await child.exited).toBe(0);
  } finally {
    closeSync(log);
  }
  const [latest, before] = await Promise.all([readFile(file, 'utf8'), readFile(`${file}.1`, 'utf8')]);
  expect(latest.length).toBeLessThanOrEqual(1100);
  expect(before.length).toBeLessThanOrEqual(1100);
  expect(latest.trimEnd().split('\n').at(-1)).toStartWith('line 99 ');
  // Nothing between the two files is missing.
  const numbers = `${before}${latest}`
    .trimEnd()
    .split('\n')
    .map((line) => Number(line.split(' ')[1]));
  expect(numbers).toEqual(numbers.map((_, at) => (numbers[0] ?? 0) + at));
  await rm(directory, { recursive: true });
});
