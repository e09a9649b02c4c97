import type { Invocation, Options } from './command.ts';
import { type Connection, connect } from './context.ts';

/** The option of the commands that concern one machine. */
export const WORKER_OPTION = {
  worker: { value: 'NAME', help: 'worker whose machine is meant (imgcred worker ls); else the server’s own' },
} satisfies Options;

/** The worker that an invocation names. */
export function namedWorker(invocation: Invocation): string | undefined {
  const name = invocation.text('worker');
  return name === '' ? undefined : name;
}

/** A path of the API with the worker that it concerns. */
export function onWorker(invocation: Invocation, path: string): string {
  const name = namedWorker(invocation);
  return name === undefined ? path : `${path}?worker=${encodeURIComponent(name)}`;
}

/** Connects for a command that concerns one machine: its worker is started where it is to be the server's own. */
export function connectToNode(invocation: Invocation): Promise<Connection> {
  return connect(invocation, namedWorker(invocation) === undefined ? { worker: 'now' } : {});
}
