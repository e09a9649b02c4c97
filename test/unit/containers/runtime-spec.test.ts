import { describe, expect, test } from 'bun:test';
import { existsSync, readFileSync } from 'node:fs';
import { ALL_CAPABILITIES, DEFAULT_CAPABILITIES } from '../../../src/worker/containers/capabilities.ts';
import { type HostFacts, parseLimits } from '../../../src/worker/containers/host-facts.ts';
import { buildRuntimeSpec, type RuntimeSpecInput } from '../../../src/worker/containers/runtime-spec.ts';
import { seccompProfile } from '../../../src/worker/containers/seccomp.ts';

const ALL_IDS = [{ inside: 0, outside: 0, length: 4_294_967_295 }];
const host: HostFacts = {
  architecture: 'x64',
  hostname: 'the-host',
  capabilities: new Set(ALL_CAPABILITIES),
  cgroup: {
    mode: 'v2',
    base: '',
    controllers: new Set(['memory', 'cpu', 'pids', 'cpuset']),
    swapAccounting: true,
  },
  seccomp: true,
  hardLimits: new Map([['nofile', 20_000]]),
  userNamespace: { initial: true, uids: ALL_IDS, gids: ALL_IDS },
};
const noCgroups: HostFacts = {
  ...host,
  cgroup: { mode: 'none', base: '', controllers: new Set(), swapAccounting: false },
};

function build(change: Partial<RuntimeSpecInput> = {}) {
  return buildRuntimeSpec({
    id: 'container-0123456789',
    image: { Cmd: ['/bin/true'] },
    options: {},
    identity: { uid: 0, gid: 0, additionalGids: [], home: '/root' },
    host,
    files: { hosts: '/c/hosts', hostname: '/c/hostname', resolvConf: '/c/resolv.conf' },
    cgroupParent: '/imgcred',
    ...change,
  });
}

describe('the runtime spec', () => {
  test('without any wish is podman’s', () => {
    const spec = build();
    expect(spec.hostname).toBe('r-0123456789');
    expect(spec.linux.namespaces.map(({ type }) => type)).toEqual([
      'pid',
      'mount',
      'ipc',
      'uts',
      'network',
      'cgroup',
    ]);
    expect(spec.linux.cgroupsPath).toBe('/imgcred/container-0123456789');
    expect(spec.linux.resources).toEqual({
      devices: [{ allow: false, access: 'rwm' }],
      pids: { limit: 2048 },
    });
    expect(spec.process).toMatchObject({
      terminal: false,
      cwd: '/',
      noNewPrivileges: false,
      user: { uid: 0, gid: 0, umask: 0o022 },
      rlimits: [
        { type: 'RLIMIT_NOFILE', soft: 20_000, hard: 20_000 },
        { type: 'RLIMIT_NPROC', soft: 4_194_304, hard: 4_194_304 },
      ],
    });
    expect(spec.root.readonly).toBe(false);
    expect(spec.linux.sysctl).toEqual({ 'net.ipv4.ping_group_range': '0 0' });
    expect(spec.annotations).toEqual({ 'org.opencontainers.image.stopSignal': '15' });
  });

  test('in the host’s network has no network name space and changes nothing of it', () => {
    const spec = build({ options: { network: 'host' } });
    expect(spec.linux.namespaces.map(({ type }) => type)).not.toContain('network');
    expect(spec.linux.sysctl).toEqual({});
  });

  test('says nothing of the image’s labels, by which crun would take orders', () => {
    const image = { Cmd: ['x'], Labels: { 'run.oci.keep_original_groups': '1' }, StopSignal: 'SIGINT' };
    expect(build({ image }).annotations).toEqual({ 'org.opencontainers.image.stopSignal': '2' });
  });

  test('takes its limits', () => {
    const limits = { memoryBytes: 64 << 20, cpus: 1.5, pids: 10, cpuShares: 512, cpusetCpus: '0-1' };
    expect(build({ options: { limits } }).linux.resources).toMatchObject({
      memory: { limit: 64 << 20, swap: 128 << 20 },
      cpu: { quota: 150_000, period: 100_000, shares: 512, cpus: '0-1' },
      pids: { limit: 10 },
    });
    expect(build({ options: { limits: { pids: -1 } } }).linux.resources?.pids).toBeUndefined();
  });

  test.each([
    [{ memoryBytes: 1000 }],
    [{ memoryBytes: 64 << 20, memorySwapBytes: 1 << 20 }],
    [{ memorySwapBytes: 1 << 30 }],
    [{ cpus: 0 }],
    [{ cpus: Number.NaN }],
  ])('refuses the limits %j', (limits) => {
    expect(() => build({ options: { limits } })).toThrow(expect.objectContaining({ code: 'INVALID_INPUT' }));
  });

  test('without control groups has none, unless a limit was asked for', () => {
    const spec = build({ host: noCgroups });
    expect(spec.linux.resources).toBeUndefined();
    expect(spec.linux.cgroupsPath).toBeUndefined();
    expect(spec.mounts.map(({ type }) => type)).not.toContain('cgroup');
    for (const limits of [{ memoryBytes: 64 << 20 }, { cpus: 1 }, { pids: 5 }, { cpusetCpus: '0' }]) {
      expect(() => build({ host: noCgroups, options: { limits } })).toThrow(/control group/);
    }
  });

  test('hides the host’s tree of control groups in version 2, where the container would see all of it', () => {
    const types = (mode: 'v1' | 'v2' | 'none') =>
      build({ host: { ...host, cgroup: { ...host.cgroup, mode } } }).linux.namespaces.map(({ type }) => type);
    expect(types('v2')).toContain('cgroup');
    expect(types('v1')).not.toContain('cgroup');
    expect(types('none')).not.toContain('cgroup');
  });

  test('names a container after the end of its id, or after the host whose network it has', () => {
    const ids = ['ctr_01m886vwa940pc3ez0s93985pq', 'ctr_01m886vwa940pc3ez0s93985pr'];
    expect(new Set(ids.map((id) => build({ id }).hostname)).size).toBe(2);
    expect(build({ options: { network: 'host' } }).hostname).toBe('the-host');
    expect(build({ options: { network: 'host', hostname: 'given' } }).hostname).toBe('given');
  });

  test('has its network files read-only where the root is', () => {
    const options = (readOnly: boolean) =>
      build({ options: { readOnly } }).mounts.find(({ destination }) => destination === '/etc/hosts')
        ?.options;
    expect(options(true)).toContain('ro');
    expect(options(false)).not.toContain('ro');
  });

  test('leaves the rule for devices out where crun could not set it, unless devices could be made', () => {
    const weak = {
      ...host,
      capabilities: new Set(ALL_CAPABILITIES.filter((name) => name !== 'CAP_SYS_RESOURCE')),
    };
    expect(build({ host: weak }).linux.resources?.devices).toBeUndefined();
    expect(build({ host: weak, options: { capAdd: ['MKNOD'] } }).linux.resources?.devices).toHaveLength(1);
    const v1 = { ...weak, cgroup: { ...weak.cgroup, mode: 'v1' as const } };
    expect(build({ host: v1 }).linux.resources?.devices).toHaveLength(1);
  });

  test('raises no limit that this process can’t raise', () => {
    const weak = { ...host, capabilities: new Set(['CAP_KILL']) };
    const rlimits = [{ name: 'nofile', soft: 1, hard: 30_000 }];
    expect(() => build({ host: weak, options: { rlimits } })).toThrow(/can't be raised/);
    expect(build({ options: { rlimits } }).process.rlimits).toContainEqual({
      type: 'RLIMIT_NOFILE',
      soft: 1,
      hard: 30_000,
    });
    expect(() => build({ options: { rlimits: [{ name: 'nope', soft: 1, hard: 1 }] } })).toThrow(
      /unknown limit/,
    );
    expect(() => build({ options: { rlimits: [{ name: 'core', soft: 2, hard: 1 }] } })).toThrow(/soft limit/);
  });

  test('mounts parents before children, and what was asked for in the place of ours', () => {
    const spec = build({
      options: {
        mounts: [
          { type: 'tmpfs', target: '/data/a/b' },
          { type: 'bind', source: '/src', target: '/data//./' },
          { type: 'tmpfs', target: '/dev/shm', sizeBytes: 1 },
        ],
      },
    });
    expect(spec.mounts.map(({ destination }) => destination)).toEqual([
      '/proc',
      '/dev',
      '/sys',
      '/dev/pts',
      '/dev/mqueue',
      '/sys/fs/cgroup',
      '/etc/hosts',
      '/etc/hostname',
      '/etc/resolv.conf',
      '/data',
      '/dev/shm',
      '/data/a/b',
    ]);
  });

  test.each(['/', 'relative', '/a/../b', '/a\0b', ''])('refuses the mount target %j', (target) => {
    expect(() => build({ options: { mounts: [{ type: 'tmpfs', target }] } })).toThrow(/mount's target/);
  });

  test('refuses two mounts at one place, and a relative source', () => {
    const twice = [{ type: 'tmpfs', target: '/a' } as const, { type: 'tmpfs', target: '/a/' } as const];
    expect(() => build({ options: { mounts: twice } })).toThrow(/same target/);
    expect(() => build({ options: { mounts: [{ type: 'bind', source: 'x', target: '/a' }] } })).toThrow(
      /absolute/,
    );
  });
});

describe('the seccomp profile', () => {
  // Packages of podman bring the profile that ours has to equal.
  const installed = '/usr/share/containers/seccomp.json';

  test.skipIf(!existsSync(installed)).each([
    ['the default set', DEFAULT_CAPABILITIES],
    ['no capability', []],
    ['all capabilities', ALL_CAPABILITIES],
    ['auditing', ['CAP_AUDIT_WRITE']],
  ])('decides as podman’s with %s', (_, capabilities) => {
    expect(decisions(seccompProfile('x64', capabilities).syscalls)).toEqual(
      decisions(
        resolveProfile(JSON.parse(readFileSync(installed, 'utf8')), ['amd64', 'x86', 'x32'], capabilities),
      ),
    );
  });

  test('is for the machine’s own processor', () => {
    expect(seccompProfile('x64', []).architectures[0]).toBe('SCMP_ARCH_X86_64');
    expect(seccompProfile('arm64', []).architectures[0]).toBe('SCMP_ARCH_AARCH64');
    expect(seccompProfile('arm64', []).syscalls[0]?.names).toContain('set_tls');
  });

  test('names each system call in one place', () => {
    const { syscalls } = seccompProfile('x64', DEFAULT_CAPABILITIES);
    const unconditional = syscalls.filter((rule) => rule.args === undefined).flatMap((rule) => rule.names);
    expect(new Set(unconditional).size).toBe(unconditional.length);
  });
});

interface Rule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number | null;
  readonly args?: readonly { readonly index: number; readonly value: number; readonly op: string }[] | null;
}

/** What a profile decides, call by call, in a comparable form. The first of two equal rules counts. */
function decisions(rules: readonly Rule[]): string[] {
  const found = new Set<string>();
  const decided = new Set<string>();
  for (const { names, action, errnoRet, args } of rules) {
    const condition = (args ?? []).map(({ index, value, op }) => `${index}${op}${value}`).join('&');
    for (const name of names) {
      const call = `${name}(${condition})`;
      // setns stands in the profile twice; what is allowed without conditions the kernel checks itself.
      if (name === 'setns' && action === 'SCMP_ACT_ERRNO') continue;
      if (decided.has(call)) continue;
      decided.add(call);
      found.add(`${call} ${action} ${action === 'SCMP_ACT_ERRNO' ? errnoRet : ''}`);
    }
  }
  return [...found].sort();
}

interface InstalledProfile {
  readonly syscalls: readonly (Rule & {
    readonly includes: { readonly arches?: string[]; readonly caps?: string[] };
    readonly excludes: { readonly arches?: string[]; readonly caps?: string[] };
  })[];
}

function resolveProfile(
  profile: InstalledProfile,
  arches: string[],
  capabilities: readonly string[],
): Rule[] {
  return profile.syscalls.filter(({ includes, excludes }) => {
    const arch = includes.arches === undefined || includes.arches.some((name) => arches.includes(name));
    const caps = includes.caps === undefined || includes.caps.every((name) => capabilities.includes(name));
    return arch && caps && !(excludes.caps ?? []).some((name) => capabilities.includes(name));
  });
}

test('limits are read from the kernel’s table', () => {
  const text = [
    'Limit                     Soft Limit           Hard Limit           Units',
    'Max processes             96365                unlimited            processes',
    'Max open files            1024                 20000                files',
  ].join('\n');
  expect([...parseLimits(text)]).toEqual([
    ['nproc', Number.POSITIVE_INFINITY],
    ['nofile', 20_000],
  ]);
});

describe('in an ordinary user’s name space', () => {
  const rootless = (count: number): HostFacts => {
    const ids = [
      { inside: 0, outside: 1000, length: 1 },
      ...(count === 1 ? [] : [{ inside: 1, outside: 100_000, length: count - 1 }]),
    ];
    return { ...noCgroups, userNamespace: { initial: false, uids: ids, gids: ids } };
  };
  const mountAt = (destination: string, change: Partial<RuntimeSpecInput>) =>
    build(change).mounts.find((mount) => mount.destination === destination);

  test('terminals belong to the group tty only where there is one', () => {
    expect(mountAt('/dev/pts', { host: rootless(65_536) })?.options).toContain('gid=5');
    expect(mountAt('/dev/pts', { host: rootless(1) })?.options).not.toContain('gid=5');
  });

  test('/sys is the machine’s own with the machine’s network, which a new one can’t be made for', () => {
    const host = rootless(65_536);
    expect(mountAt('/sys', { host })?.type).toBe('sysfs');
    expect(mountAt('/sys', { host, options: { network: 'host' } })).toMatchObject({
      type: 'bind',
      source: '/sys',
      options: expect.arrayContaining(['rbind', 'ro', 'nosuid', 'nodev']),
    });
  });

  test('a limit above the process’s own is refused, capability or not', () => {
    const raise = { rlimits: [{ name: 'nofile', soft: 30_000, hard: 30_000 }] };
    expect(() => build({ options: raise })).not.toThrow();
    expect(() => build({ options: raise, host: rootless(65_536) })).toThrow("can't be raised above 20000");
  });
});
