import { createContainerSchema, execRequestSchema } from '../protocol/index.ts';
import { isCapability, isSignal } from '../worker/index.ts';
import {
  decimalNumber,
  matching,
  oneOf,
  pair,
  seconds,
  sizeOf,
  type ValueKind,
  wholeNumber,
} from './option-values.ts';

// What the options of a container must be: the API's own rules, in the command line's words.

const request = createContainerSchema.shape;
const { workdir, user, hostname } = request.overrides.unwrap().shape;

export const NAME = matching(
  request.name.unwrap(),
  'be letters, digits, "_", "." or "-", 128 at most, beginning with a letter or digit',
  'web',
);
export const RESTART = matching(
  request.restart,
  'be no, always, on-failure or on-failure:N with N from 1',
  'on-failure:3',
);
export const WORKDIR = matching(workdir.unwrap(), 'be an absolute path in the container', '/srv');
export const EXEC_WORKDIR = matching(
  execRequestSchema.shape.workdir.unwrap(),
  'be an absolute path in the container',
  '/srv',
);
export const USER = matching(user.unwrap(), 'be USER, USER:GROUP or :GROUP, by name or number', '1000:1000');
export const HOST_NAME = matching(
  hostname.unwrap(),
  'be a host name: letters, digits, "-" and ".", 63 at most',
  'web-1',
);
export const NETWORK = oneOf('none', 'host');
export const SECURITY = oneOf('no-new-privileges', 'no-new-privileges:true', 'no-new-privileges=true');

// 0 is no limit, as podman has it.
const NO_LIMIT = [0];
/** Bytes. */
export const MEMORY = sizeOf(4 << 20, '4 MiB', NO_LIMIT);
/** Cores: the kernel's share is no smaller than a hundredth. */
export const CPUS = decimalNumber(' of processor cores', { least: 0.01, most: 4096 }, '1.5', NO_LIMIT);
/** @see Linux `include/linux/threads.h`, PID_MAX_LIMIT */
export const PIDS_LIMIT = wholeNumber({ least: 1, most: 4 << 20 }, '512', { '-1': -1, '0': -1 } as const);
export const STOP_TIMEOUT = seconds(0, 86_400, '30');

/** A label; its value may be left out. */
export const LABEL = pair('team=web', '');
/** A label that a worker must have: one that can't be told from a name alone. */
export const WORKER_LABEL = pair('zone=b');

export const CAPABILITY: ValueKind<string> = {
  must: 'be ALL or a name of capabilities(7)',
  example: 'NET_BIND_SERVICE',
  parse: (text) => (isCapability(text) ? text : undefined),
};
export const SIGNAL: ValueKind<string> = {
  must: 'be a name or a number of signal(7)',
  example: 'TERM',
  parse: (text) => (isSignal(text) ? text : undefined),
};
