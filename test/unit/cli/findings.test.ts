import { describe, expect, test } from 'bun:test';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  findCgroups,
  findDriver,
  findFeatures,
  findOverlay,
  mountHelperFinding,
} from '../../../src/cli/host-findings.ts';
import { findRootless, type RootlessFacts } from '../../../src/cli/rootless-finding.ts';
import { findMasterKey, findState } from '../../../src/cli/state-findings.ts';
import type { DriverChoice } from '../../../src/mounts/index.ts';
import { temporaryDirectory } from '../database/world.ts';

const all = { passthrough: true, resend: true, readdirplus: true, maxPages: 256 };
const choice = (
  driver: DriverChoice['driver'],
  probe: Partial<DriverChoice['probe']> = {},
): DriverChoice => ({
  driver,
  reason: 'it can run here',
  probe: { available: true, kernelVersion: '6.18.0', features: all, mounting: 'mount', ...probe },
});

describe('the FUSE driver', () => {
  const cases: [name: string, choice: DriverChoice, status: string, detail: string][] = [
    ['the kernel driver as root', choice('kernel'), 'ok', 'kernel: it can run here; mounts by mount(2)'],
    ['the kernel driver by fusermount3', choice('kernel', { mounting: 'fusermount3' }), 'ok', 'fusermount3'],
    ['fuse-native as root', choice('fuse-native', { available: false }), 'ok', 'fuse-native'],
    [
      'no way to mount',
      choice('fuse-native', { available: false, mounting: 'none' }),
      'fail',
      'no way to mount',
    ],
  ];
  for (const [name, given, status, detail] of cases) {
    test(`is ${status} with ${name}`, () => {
      const finding = findDriver(given);
      expect(finding.status).toBe(status as 'ok');
      expect(finding.detail).toContain(detail);
      expect(finding.hint === undefined).toBe(status === 'ok');
    });
  }

  test('has all features on a new kernel as root', () => {
    expect(findFeatures(choice('kernel'))).toMatchObject({
      status: 'ok',
      detail: 'passthrough, resend, readdirplus, max_pages 256',
    });
  });

  test('says what is lost without a feature, and what to do', () => {
    const features = { ...all, passthrough: false, resend: false };
    const finding = findFeatures(choice('kernel', { features }));
    expect(finding.status).toBe('warn');
    expect(finding.detail).toContain('without passthrough (local files at the disk’s own speed) and resend');
    expect(finding.hint).toContain('Linux 6.9');
  });

  test('has a helper for ordinary users, or says that `imgcred mount` lacks it', () => {
    expect(mountHelperFinding(true)).toMatchObject({ status: 'ok' });
    expect(mountHelperFinding(false)).toMatchObject({ status: 'warn', hint: 'install fuse3' });
  });

  test('has none of them as fuse-native', () => {
    expect(findFeatures(choice('fuse-native')).status).toBe('warn');
  });
});

describe('overlayfs', () => {
  test('is seen among the file systems', () => {
    expect(findOverlay('nodev\tsysfs\nnodev\toverlay\n').status).toBe('ok');
    expect(findOverlay('nodev\tsysfs\n\text4\n')).toMatchObject({ status: 'warn', hint: 'modprobe overlay' });
  });
});

describe('control groups', () => {
  const facts = (mode: 'v1' | 'v2' | 'none', controllers: string[]) => ({
    mode,
    controllers: new Set(controllers),
    base: '',
    swapAccounting: true,
  });
  const cases: [facts: ReturnType<typeof facts>, status: string, hint: string | undefined][] = [
    [facts('v2', ['cpu', 'memory', 'pids', 'io']), 'ok', undefined],
    [facts('v1', ['cpu', 'pids']), 'warn', 'without memory such limits are not enforced'],
    [facts('none', []), 'warn', 'run as root'],
  ];
  for (const [given, status, hint] of cases) {
    test(`${given.mode} with ${[...given.controllers].join(', ') || 'nothing'} is ${status}`, () => {
      const finding = findCgroups(given);
      expect(finding.status).toBe(status as 'ok');
      if (hint === undefined) expect(finding.hint).toBeUndefined();
      else expect(finding.hint).toStartWith(hint);
    });
  }
});

describe('running as an ordinary user', () => {
  const able = { kind: 'namespace', users: 65_537, groups: 65_537, subordinateIds: true } as const;
  const cases: [name: string, facts: RootlessFacts, status: string, detail: string, hint?: string][] = [
    ['root', { kind: 'root' }, 'ok', 'not needed'],
    ['a range of ids', { ...able, mapperLack: undefined }, 'ok', '65537 users'],
    [
      'no newuidmap',
      { ...able, users: 1, groups: 1, mapperLack: 'newuidmap is missing' },
      'warn',
      'one user only: newuidmap is missing',
      'install uidmap',
    ],
    [
      'no subordinate ids',
      { ...able, users: 1, groups: 1, mapperLack: undefined, subordinateIds: false },
      'warn',
      'no subordinate ids',
      'usermod --add-subuids',
    ],
    [
      'a newuidmap that fails',
      { ...able, users: 1, mapperLack: undefined },
      'warn',
      'newuidmap failed',
      'it needs its set-user-id bit',
    ],
    [
      'user name spaces forbidden',
      { kind: 'refused', lack: { reason: 'they are switched off', hint: 'sysctl it' } },
      'fail',
      'switched off',
      'sysctl it',
    ],
  ];
  for (const [name, facts, status, detail, hint] of cases) {
    test(`with ${name} is ${status}`, () => {
      const finding = findRootless(facts);
      expect(finding.status).toBe(status as 'ok');
      expect(finding.detail).toContain(detail);
      if (hint === undefined) expect(finding.hint).toBeUndefined();
      else expect(finding.hint).toStartWith(hint);
    });
  }
});

describe('the master key', () => {
  const at = (path: string, changes: object = {}) => ({
    path,
    origin: 'data directory' as const,
    managed: true,
    groupMayRead: false,
    ...changes,
  });
  test('is made at the first start where there is none and no database either', () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'key');
    expect(findMasterKey(at(path), false)).toMatchObject({ status: 'ok' });
    expect(findMasterKey(at(path), true)).toMatchObject({ status: 'fail' });
    expect(findMasterKey(at(path, { managed: false, origin: 'option' }), false)).toMatchObject({
      status: 'fail',
      hint: 'make one with `imgcred key generate`, readable by its owner only',
    });
  });
  const modes: [mode: number, groupMayRead: boolean, status: string][] = [
    [0o600, false, 'ok'],
    [0o400, false, 'ok'],
    [0o640, false, 'fail'],
    [0o640, true, 'ok'],
    [0o644, true, 'fail'],
    [0o604, false, 'fail'],
  ];
  for (const [mode, groupMayRead, status] of modes) {
    test(`with the mode ${mode.toString(8)}${groupMayRead ? ' in a guarded directory' : ''} is ${status}`, () => {
      using directory = temporaryDirectory();
      const path = join(directory.path, 'key');
      writeFileSync(path, '');
      chmodSync(path, mode);
      expect(findMasterKey(at(path, { groupMayRead }), true).status).toBe(status as 'ok');
    });
  }
});

describe('the data directory', () => {
  const findingOf = (path: string) => findState({ data_dir: path, master_key_file: undefined })[0];
  test('need not exist, and is not made', () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a', 'b');
    expect(findingOf(path)).toMatchObject({ status: 'ok', facts: { present: false } });
    expect(findingOf(path)?.facts.present).toBe(false);
  });
  test('can’t be a file, nor have a path too long for a socket', () => {
    using directory = temporaryDirectory();
    const file = join(directory.path, 'file');
    writeFileSync(file, '');
    expect(findingOf(join(file, 'below'))?.status).toBe('fail');
    expect(findingOf(join(directory.path, 'x'.repeat(100)))?.detail).toContain('too long for a Unix socket');
  });
});
