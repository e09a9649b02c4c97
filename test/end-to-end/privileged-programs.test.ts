import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { Probe } from '../conformance/filesystem/probe.ts';
import { Sandbox } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import { Podman } from '../fixtures/podman.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

let registry: RegistryFixture;
let image: PushedImage;
let podman: Podman | undefined;

beforeAll(async () => {
  registry = await startRegistry();
  await using probe = await Probe.compile();
  const programs = `
    mkdir bin; for name in plain setuid capable; do cp ${probe.staticProgram} bin/$name; done
    chown 33:33 bin/setuid; chmod 4755 bin/setuid
    setcap cap_net_bind_service+ep bin/capable; cp bin/plain bin/setuid-root; chmod 4755 bin/setuid-root`;
  image = await new Pusher(registry).image({
    repository: 'privileged/app',
    tag: '1',
    layers: [await busyboxLayer(), await layerOf(programs)],
  });
  podman = await Podman.open(image.reference);
}, 120_000);

afterAll(async () => {
  await podman?.[Symbol.asyncDispose]();
  await registry?.stop();
}, 60_000);

const NONE = 'CapEff:\t0000000000000000';
// What podman gives a root without more being asked for.
const DEFAULT = 'CapEff:\t00000000800405fb';

// In each line: the program, and what it says of itself when user 1000 has started it.
const PROGRAMS = [
  ['plain', `uid 1000 euid 1000\n${NONE}\n`],
  ['setuid', `uid 1000 euid 33\n${NONE}\n`],
  ['setuid-root', `uid 1000 euid 0\n${DEFAULT}\n`],
  ['capable', `uid 1000 euid 1000\nCapEff:\t0000000000000400\n`],
] as const;

for (const driver of ['kernel', 'fuse-native']) {
  describe(`in a container of user 1000, over the ${driver} driver,`, () => {
    let sandbox: Sandbox;
    beforeAll(async () => {
      sandbox = await Sandbox.make();
      await sandbox.serve(['--fuse-driver', driver]);
      expect(await sandbox.run(['image', 'add', image.reference])).toMatchObject({ code: 0 });
    }, 60_000);
    afterAll(() => sandbox[Symbol.asyncDispose](), 60_000);

    test.each([...PROGRAMS])(
      'the program %s has what podman gives it',
      async (name, expected) => {
        const ours = await sandbox.run(['run', '--user', '1000', image.reference, '--', `/bin/${name}`]);
        expect(ours).toEqual({ code: 0, stdout: expected, stderr: '' });
        const theirs = await podman?.run(['--user', '1000', image.reference, `/bin/${name}`]);
        if (theirs !== undefined) expect(theirs.stdout).toBe(expected);
      },
      60_000,
    );
  });
}
