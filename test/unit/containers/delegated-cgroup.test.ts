import { describe, expect, test } from 'bun:test';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { divideDelegatedGroup, findDelegatedGroup } from '../../../src/worker/containers/delegated-cgroup.ts';
import { temporaryDirectory } from '../database/world.ts';

// The files of a group are enough: what the kernel makes of them, the end-to-end tests see.
function group(root: string, path: string, files: Readonly<Record<string, string>>): void {
  mkdirSync(join(root, path), { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(root, path, name), text);
}

const alone = {
  'cgroup.procs': `${process.pid}\n`,
  'cgroup.subtree_control': '',
  'cgroup.controllers': 'cpu memory pids hugetlb\n',
};

describe('a delegated control group', () => {
  test('is the process’s own, if it is alone in it', () => {
    using directory = temporaryDirectory();
    group(directory.path, '/user.slice/run-1.scope', alone);
    group(directory.path, '/user.slice/run-2.scope', { ...alone, 'cgroup.procs': `1\n${process.pid}\n` });
    expect(findDelegatedGroup(directory.path, '/user.slice/run-1.scope')).toEqual({
      path: '/user.slice/run-1.scope',
      controllers: new Set(['cpu', 'memory', 'pids', 'hugetlb']),
    });
    expect(findDelegatedGroup(directory.path, '/user.slice/run-2.scope')).toBeUndefined();
    expect(findDelegatedGroup(directory.path, '/user.slice/none')).toBeUndefined();
    for (const path of ['/', '/../outside', undefined])
      expect(findDelegatedGroup(directory.path, path)).toBeUndefined();
  });

  test('is divided: the process goes below, the controllers are for what comes beside it', () => {
    using directory = temporaryDirectory();
    group(directory.path, '/run-1.scope', alone);
    divideDelegatedGroup(directory.path, findDelegatedGroup(directory.path, '/run-1.scope'));
    const below = join(directory.path, 'run-1.scope', 'imgcred.processes');
    expect(readFileSync(join(below, 'cgroup.procs'), 'utf8')).toBe(String(process.pid));
    expect(existsSync(below)).toBe(true);
    // One write a controller: the last one that the kernel would have seen.
    expect(readFileSync(join(directory.path, 'run-1.scope', 'cgroup.subtree_control'), 'utf8')).toBe('+pids');
  });

  test('is the one above for a process that has gone below', () => {
    using directory = temporaryDirectory();
    group(directory.path, '/run-1.scope', {
      ...alone,
      'cgroup.procs': '',
      'cgroup.subtree_control': 'memory pids\n',
    });
    expect(findDelegatedGroup(directory.path, '/run-1.scope/imgcred.processes')).toEqual({
      path: '/run-1.scope',
      controllers: new Set(['memory', 'pids']),
    });
  });
});
