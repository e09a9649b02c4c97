import type { Config } from '../../config/index.ts';
import { BUILD, dataLayout } from '../../config/index.ts';
import { MountClient } from '../../mounts/index.ts';
import { ApiClient } from '../api-client.ts';
import type { Command } from '../command.ts';
import { CONNECTION_OPTIONS, configOf, ROLE_OPTIONS } from '../context.ts';
import { type Finding, findHost } from '../host-findings.ts';
import { print, printJson } from '../output.ts';
import { tryRootless } from '../rootless.ts';
import { findState } from '../state-findings.ts';

export const doctor: Command = {
  words: ['doctor'],
  summary: 'Tell what this machine can do, what it lacks, and what to do about that',
  description:
    'Looks at the kernel, FUSE, the container runtime, control groups, the data directory and the master key, and\n' +
    'changes nothing. Exits with 0 when containers can run here, else with 1.',
  examples: ['imgcred doctor', 'imgcred doctor --json'],
  options: {
    'data-dir': CONNECTION_OPTIONS['data-dir'],
    config: ROLE_OPTIONS.config,
    'fuse-driver': ROLE_OPTIONS['fuse-driver'],
    runtime: ROLE_OPTIONS.runtime,
    'master-key-file': ROLE_OPTIONS['master-key-file'],
    json: CONNECTION_OPTIONS.json,
  },
  positionals: [0, 0],
  async run(invocation) {
    const config = configOf(invocation);
    // An ordinary user's containers would run in a name space: what counts is what can be done there.
    const lack = await tryRootless({ data_dir: config.data_dir, roles: ['worker'] });
    const findings = [
      ...(await findHost(config, lack)),
      ...findState(config),
      await findServer(config),
      findMountServer(await new MountClient(dataLayout(config.data_dir).mountSocket).health()),
    ];
    const ready = findings.every((finding) => finding.status !== 'fail');
    if (invocation.flag('json')) await printJson({ ready, findings });
    else await print(report(findings, ready));
    return ready ? 0 : 1;
  },
};

async function findServer(config: Config): Promise<Finding> {
  const { socket } = dataLayout(config.data_dir);
  const alive = await new ApiClient({ kind: 'socket', path: socket }).alive();
  return {
    name: 'server',
    status: 'ok',
    detail: alive ? `one answers at ${socket}` : 'none runs here: commands start their own',
    facts: { running: alive },
  };
}

/** Which process serves the mounts, and whether it is of this build. */
function findMountServer(health: Awaited<ReturnType<MountClient['health']>>): Finding {
  const name = 'mount server';
  if (health === undefined) {
    return {
      name,
      status: 'ok',
      detail: 'none runs here: a worker starts its own',
      facts: { running: false },
    };
  }
  const { pid, version, build, mounts } = health;
  const same = build === BUILD;
  return {
    name,
    status: same ? 'ok' : 'warn',
    detail: `process ${pid} of imgcred ${build ?? version}, images mounted: ${mounts}`,
    ...(same ? {} : { hint: 'restart imgcred serve: one of its own version takes the mounts over' }),
    facts: { running: true, pid, version, build: build ?? null, mounts },
  };
}

function report(findings: readonly Finding[], ready: boolean): string {
  const width = Math.max(...findings.map((finding) => finding.name.length));
  const lines = findings.flatMap(({ name, status, detail, hint }) => {
    const left = `${status.padEnd('warn'.length)}  ${name.padEnd(width)}`;
    return [`${left}  ${detail}`, ...(hint === undefined ? [] : [`${' '.repeat(left.length)}  → ${hint}`])];
  });
  const verdict = ready
    ? 'Containers can run here.'
    : 'Containers can’t run here before what failed is put right.';
  return `${lines.join('\n')}\n\n${verdict}\n`;
}
