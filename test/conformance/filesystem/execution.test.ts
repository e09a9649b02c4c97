import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { DRIVERS } from './drivers.ts';
import { Probe } from './probe.ts';
import { output, ServedTree, unprivileged } from './served-tree.ts';

const NO_CAPABILITIES = 'CapEff:\t0000000000000000';
const NET_BIND_SERVICE = 'CapEff:\t0000000000000400';

describe.each(DRIVERS)('programs run from $name', ({ name }) => {
  let tree: ServedTree;
  let probe: Probe;
  beforeAll(async () => {
    probe = await Probe.compile();
    tree = await ServedTree.start(name, { programs: [probe.dynamicProgram, probe.staticProgram] });
  });
  afterAll(async () => {
    await Promise.all([tree[Symbol.asyncDispose](), probe[Symbol.asyncDispose]()]);
  });

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
