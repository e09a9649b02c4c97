import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { output, unprivileged } from './commands.ts';
import { Probe } from './probe.ts';
import { ServedTree } from './served-tree.ts';
import { DRIVERS_AND_SOURCES } from './sources.ts';

const NO_CAPABILITIES = 'CapEff:\t0000000000000000';
const NET_BIND_SERVICE = 'CapEff:\t0000000000000400';

describe.each(DRIVERS_AND_SOURCES)('programs run from $title', ({ driver, source }) => {
  let tree: ServedTree;
  const resources = new AsyncDisposableStack();
  beforeAll(async () => {
    const probe = resources.use(await Probe.compile());
    tree = resources.use(
      await ServedTree.start(driver, { source, programs: [probe.dynamicProgram, probe.staticProgram] }),
    );
  });
  afterAll(() => resources.disposeAsync());

  test.each(['probe', 'probe-static'])('%s, by an ordinary user', async (program) => {
    const printed = await output(unprivileged([tree.path('bin', program)]));
    expect(printed).toBe(`uid 65534 euid 65534\n${NO_CAPABILITIES}\n`);
  });

  test('a script, by its interpreter', async () => {
    expect(await output([tree.path('bin/script'), 'argument'])).toBe('script argument\n');
  });

  test('a set-user-id program gets its owner', async () => {
    const printed = await output(unprivileged([tree.path('bin/probe-static-setuid')]));
    expect(printed).toStartWith('uid 65534 euid 0\n');
  });

  test('a program with file capabilities gets them', async () => {
    const printed = await output(unprivileged([tree.path('bin/probe-static-capable')]));
    expect(printed).toBe(`uid 65534 euid 65534\n${NET_BIND_SERVICE}\n`);
  });
});
