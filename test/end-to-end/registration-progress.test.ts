import { expect, test } from 'bun:test';
import { EXECUTABLE, Sandbox } from '../fixtures/executable/index.ts';
import { TerminalProgram } from '../fixtures/executable/terminal.ts';
import { Pusher, startFaultProxy, startRegistry } from '../fixtures/registry/index.ts';
import { tarOf } from '../fixtures/tree/index.ts';
import { noise } from '../unit/index/support/data.ts';

test('whoever registers an image at a terminal sees bytes, entries, rate and the time that is left', async () => {
  await using registry = await startRegistry();
  await using proxy = await startFaultProxy(registry.url, { linkBytesPerSecond: 1_000_000 });
  await using sandbox = await Sandbox.make();
  const image = await new Pusher(registry).image({
    layers: [tarOf([{ name: 'small' }, { name: 'noise', data: noise(2_000_000) }])],
  });
  await using terminal = new TerminalProgram(
    [EXECUTABLE, 'image', 'add', image.reference.replace(registry.host, proxy.host)],
    {
      columns: 200,
      env: { PATH: process.env.PATH ?? '', HOME: sandbox.directory, IMGCRED_DATA_DIR: sandbox.dataDirectory },
    },
  );
  expect(await terminal.exited).toBe(0);
  const lines = terminal.shown.split(/[\r\n]/);
  const last = lines.findLast((line) => line.includes(' left'));
  expect(last).toMatch(
    /indexing: \d of 1 layer, [\d.]+ [kM]B of 2\.0 MB, [12] entr(y|ies), [\d.]+ [kM]B\/s, \d+ s left/,
  );
  expect(terminal.shown).toContain('2 entries');
}, 60_000);
