import type { ContainerOverrides, CreateContainer } from '../protocol/index.ts';
import type { Invocation, Options } from './command.ts';
import {
  CAPABILITY,
  CPUS,
  HOST_NAME,
  LABEL,
  MEMORY,
  NAME,
  NETWORK,
  PIDS_LIMIT,
  RESTART,
  SECURITY,
  STOP_TIMEOUT,
  USER,
  WORKDIR,
  WORKER_LABEL,
} from './container-values.ts';
import { readEnvironment } from './environment-option.ts';
import { parseMount, parseVolume } from './mount-option.ts';
import { ANY, optionValue, optionValues, SIZE } from './option-values.ts';
import { parseSecretUse } from './secret-option.ts';
import { terminalSize } from './terminal.ts';

/** Options that say how a container is run. */
export const CONTAINER_OPTIONS = {
  env: {
    value: 'KEY[=VALUE]',
    takes: ANY,
    short: 'e',
    multiple: true,
    help: 'environment variable; without a value, this shell’s',
  },
  'env-file': { value: 'FILE', multiple: true, help: 'file with KEY=VALUE lines' },
  secret: {
    value: 'NAME[,…]',
    takes: ANY,
    multiple: true,
    help: 'secret of the workspace: NAME[,target=PATH][,mode=][,uid=][,gid=], or NAME,type=env[,target=VAR]',
  },
  entrypoint: {
    value: 'COMMAND',
    takes: ANY,
    help: 'instead of the image’s entrypoint; ["a","b"] for several words, empty for none',
  },
  workdir: { value: 'DIR', takes: WORKDIR, short: 'w', help: 'working directory' },
  user: {
    value: 'USER[:GROUP]',
    takes: USER,
    short: 'u',
    help: 'user name or number, resolved in the image',
  },
  hostname: { value: 'NAME', takes: HOST_NAME, help: 'host name' },
  network: { value: 'none|host', takes: NETWORK, help: 'network (none)' },
  mount: {
    value: 'type=bind|tmpfs,…',
    takes: ANY,
    multiple: true,
    help: 'type=bind,source=…,target=…[,ro] or type=tmpfs,target=…[,size=…]',
  },
  volume: {
    value: 'SOURCE:TARGET[:ro]',
    takes: ANY,
    short: 'v',
    multiple: true,
    help: 'the same as --mount type=bind,…',
  },
  'read-only': { help: 'root file system is read-only' },
  memory: { value: 'SIZE', takes: MEMORY, short: 'm', help: 'memory limit' },
  cpus: { value: 'N', takes: CPUS, help: 'processor cores, fractions allowed' },
  'pids-limit': {
    value: 'N',
    takes: PIDS_LIMIT,
    help: 'most processes at once; -1 for no limit (2048)',
  },
  'cap-add': { value: 'CAP', takes: CAPABILITY, multiple: true, help: 'add a capability' },
  'cap-drop': {
    value: 'CAP',
    takes: CAPABILITY,
    multiple: true,
    help: 'drop a capability (ALL drops each)',
  },
  'security-opt': {
    value: 'no-new-privileges',
    takes: SECURITY,
    help: 'no program of it gains rights by set-uid bits',
  },
  label: { value: 'KEY[=VALUE]', takes: LABEL, short: 'l', multiple: true, help: 'label' },
  restart: { value: 'POLICY', takes: RESTART, help: 'no, always, on-failure or on-failure:N (no)' },
  'worker-label': {
    value: 'KEY=VALUE',
    takes: WORKER_LABEL,
    multiple: true,
    help: 'label that the worker must have',
  },
  'stop-timeout': {
    value: 'SECONDS',
    takes: STOP_TIMEOUT,
    help: 'between stop signal and SIGKILL (10)',
  },
  name: { value: 'NAME', takes: NAME, help: 'name of the container' },
  'max-fetch': { value: 'SIZE', takes: SIZE, help: 'fail the run once it has fetched more than this' },
  interactive: { short: 'i', help: 'keep the standard input open, and pass ours on' },
  tty: { short: 't', help: 'give it a terminal' },
} satisfies Options;

/**
 * The request that the options of a run make.
 *
 * @throws ImgcredError USAGE naming the option
 */
export async function runRequest(invocation: Invocation, image: string): Promise<CreateContainer> {
  const name = invocation.text('name');
  const maxFetch = optionValue(invocation, 'max-fetch', SIZE);
  const workerLabels = optionValues(invocation, 'worker-label', WORKER_LABEL);
  const secrets = invocation.texts('secret').map(parseSecretUse);
  return {
    image,
    ...(invocation.rest.length === 0 ? {} : { command: [...invocation.rest] }),
    env: await readEnvironment(invocation.texts('env'), invocation.texts('env-file')),
    ...(name === undefined ? {} : { name }),
    overrides: overridesOf(invocation),
    ...(secrets.length === 0 ? {} : { secrets }),
    restart: invocation.text('restart') ?? 'no',
    ...(workerLabels.length === 0 ? {} : { worker_labels: Object.fromEntries(workerLabels) }),
    ...(maxFetch === undefined ? {} : { max_fetch_bytes: maxFetch }),
  };
}

function overridesOf(invocation: Invocation): ContainerOverrides {
  const several = (name: string) => {
    const values = invocation.texts(name);
    return values.length === 0 ? undefined : [...values];
  };
  const labels = optionValues(invocation, 'label', LABEL);
  const mounts = [
    ...invocation.texts('mount').map(parseMount),
    ...invocation.texts('volume').map(parseVolume),
  ];
  const tty = invocation.flag('tty');
  const attached = !invocation.flag('detach') && (tty || invocation.flag('interactive'));
  return withoutUndefined<ContainerOverrides>({
    entrypoint: entrypointOf(invocation.text('entrypoint')),
    workdir: invocation.text('workdir'),
    user: invocation.text('user'),
    hostname: invocation.text('hostname'),
    network: optionValue(invocation, 'network', NETWORK),
    mounts: mounts.length === 0 ? undefined : mounts,
    read_only: invocation.flag('read-only') ? true : undefined,
    memory_bytes: limitOf(optionValue(invocation, 'memory', MEMORY)),
    cpus: limitOf(optionValue(invocation, 'cpus', CPUS)),
    pids_limit: optionValue(invocation, 'pids-limit', PIDS_LIMIT),
    cap_add: several('cap-add'),
    cap_drop: several('cap-drop'),
    no_new_privileges: invocation.text('security-opt') === undefined ? undefined : true,
    labels: labels.length === 0 ? undefined : Object.fromEntries(labels),
    stop_timeout: optionValue(invocation, 'stop-timeout', STOP_TIMEOUT),
    interactive: invocation.flag('interactive') ? true : undefined,
    terminal: tty ? true : undefined,
    terminal_size: tty ? terminalSize() : undefined,
    start_when_attached: attached ? true : undefined,
  });
}

function entrypointOf(text: string | undefined): string[] | undefined {
  if (text === undefined) return undefined;
  if (text === '') return [];
  if (!text.trimStart().startsWith('[')) return [text];
  try {
    const words: unknown = JSON.parse(text);
    if (Array.isArray(words) && words.every((word) => typeof word === 'string')) return words;
  } catch {
    // As podman: what is no JSON is the name of a program.
  }
  return [text];
}

function limitOf(limit: number | undefined): number | undefined {
  return limit === 0 ? undefined : limit;
}

type Optional<T> = { [K in keyof T]?: T[K] | undefined };

/** `exactOptionalPropertyTypes` tells an absent field from an undefined one; JSON doesn't. */
function withoutUndefined<T extends object>(value: Optional<T>): T {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T;
}
