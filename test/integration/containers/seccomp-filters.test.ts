import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ContainerRuntime, findRuntime } from '../../../src/worker/containers/index.ts';
import { ContainerLab } from './rootfs.ts';
import { create, endLab, output, run } from './running.ts';

// A call that the filter refuses, with an argument that the kernel itself would refuse otherwise.
const PROBE = `
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
  long result = syscall(SYS_userfaultfd, -1);
  printf("%s\\n", result >= 0 ? "ok" : strerrorname_np(errno));
  return 0;
}`;
const REFUSED = 'EPERM\n';
// What the kernel itself says of the argument, where nothing refuses the call before.
const LET_THROUGH = 'EINVAL\n';
// struct sock_filter: return SECCOMP_RET_ALLOW.
const ALLOWS_ALL = Buffer.from([6, 0, 0, 0, 0, 0, 0xff, 0x7f]);

let lab: ContainerLab;
let crun: ContainerRuntime;
beforeAll(async () => {
  lab = new ContainerLab();
  lab.compile('probe', PROBE);
  crun = await findRuntime('crun');
});
afterAll(() => endLab(lab));

describe('the program of a seccomp filter', () => {
  const probed = async (filters: string, options: { capAdd?: string[] } = {}) =>
    (await run(lab, crun, { filters, options: { ...options, command: ['/bin/probe'] } })).stdout;
  const kept = (filters: string) => readdirSync(filters).map((name) => join(filters, name));
  const keptOne = async (name: string) => {
    const filters = join(lab.directory, name);
    expect(await probed(filters)).toBe(REFUSED);
    const [path = '', ...others] = kept(filters);
    expect(others).toEqual([]);
    return { filters, path };
  };
  const replace = (path: string, program: Uint8Array) =>
    writeFileSync(path, Buffer.concat([createHash('sha256').update(program).digest(), program]));

  test('is made once for each profile, and does the same when it is taken from there', async () => {
    const { filters, path } = await keptOne('once');
    const bytes = readFileSync(path);
    expect(await probed(filters)).toBe(REFUSED);
    expect(await probed(filters, { capAdd: ['SYS_PTRACE'] })).toBe(REFUSED);
    expect(kept(filters)).toHaveLength(2);
    expect(readFileSync(path)).toEqual(bytes);
  });

  test('is taken from where it is kept, for what is executed in the container too', async () => {
    const { filters, path } = await keptOne('taken');
    replace(path, ALLOWS_ALL);
    expect(await probed(filters)).toBe(LET_THROUGH);
    const container = await create(lab, crun, { filters, options: { command: ['sleep', '1000'] } });
    await container.start();
    const executed = await container.exec({ command: ['/bin/probe'] });
    let text = '';
    for await (const { bytes } of executed.output()) text += Buffer.from(bytes).toString();
    expect(text).toBe(LET_THROUGH);
    await container.delete();
  });

  test.each<[string, (path: string) => void]>([
    ['torn', (path) => truncateSync(path, 1000)],
    ['empty', (path) => truncateSync(path, 0)],
    ['another than was written', (path) => writeFileSync(path, Buffer.alloc(40))],
    [
      'more than a day old',
      (path) => {
        replace(path, ALLOWS_ALL);
        const then = Date.now() / 1000 - 25 * 3600;
        utimesSync(path, then, then);
      },
    ],
  ])('is made again when the kept one is %s', async (what, spoil) => {
    const { filters, path } = await keptOne(what);
    const bytes = readFileSync(path);
    spoil(path);
    expect(await probed(filters)).toBe(REFUSED);
    expect(kept(filters)).toEqual([path]);
    expect(readFileSync(path)).toEqual(bytes);
  });

  test('is kept for 64 profiles at most, the newest', async () => {
    const filters = join(lab.directory, 'many');
    await probed(filters);
    for (let number = 0; number < 70; number++) {
      const path = join(filters, `other-${number}`);
      writeFileSync(path, '');
      utimesSync(path, Date.now() / 1000 - 1000 + number, Date.now() / 1000 - 1000 + number);
    }
    await probed(filters, { capAdd: ['SYS_ADMIN'] });
    const names = readdirSync(filters);
    expect(names).toHaveLength(64);
    expect(names).toContain('other-69');
    expect(names).not.toContain('other-7');
  });

  test('is nobody’s affair where it can’t be kept', async () => {
    const filters = join(lab.rootfs, 'bin/probe', 'below-a-file');
    expect(await probed(filters)).toBe(REFUSED);
    expect(existsSync(filters)).toBe(false);
  });

  test('is left to runc, which makes its own', async () => {
    const filters = join(lab.directory, 'runc');
    const runc = await findRuntime('runc');
    const container = await create(lab, runc, { filters, options: { command: ['/bin/probe'] } });
    await container.start();
    await container.wait();
    expect((await output(container)).stdout).toBe(REFUSED);
    await container.delete();
    expect(existsSync(filters)).toBe(false);
  });
});
