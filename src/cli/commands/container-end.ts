import { z } from 'zod';
import { ImgcredError } from '../../errors/index.ts';
import type { ApiClient } from '../api-client.ts';
import { containerPath, containerShape } from '../api-shapes.ts';
import type { Command } from '../command.ts';
import { SIGNAL } from '../container-values.ts';
import { CONNECTION_OPTIONS, connect } from '../context.ts';
import { eachNamed } from '../each-named.ts';
import { optionValue, seconds } from '../option-values.ts';

// What a container has that was not told otherwise, as the worker knows it.
const DEFAULT_STOP_TIMEOUT_S = 10;
// From SIGKILL to the report of the end, also from a busy machine that is far away.
const MARGIN_MS = 20_000;

const TIME = seconds(0, 86_400, '3');

const stoppable = containerShape.extend({
  overrides: z.looseObject({ stop_timeout: z.number().optional() }),
});

export const containerStop: Command = {
  words: ['container', 'stop'],
  summary: 'Stop containers: their stop signal, then SIGKILL',
  usage: 'CONTAINER…',
  description:
    'Returns once they have ended. Ctrl-C leaves: they are stopped all the same. SIGKILL comes after the time that\n' +
    '--stop-timeout gave to the container, or --time if that is less.',
  examples: ['imgcred container stop web', 'imgcred container stop --time 2 web worker'],
  options: {
    time: { value: 'SECONDS', takes: TIME, short: 't', help: 'SIGKILL after so long, if not sooner' },
    kill: { help: 'SIGKILL at once' },
    ...CONNECTION_OPTIONS,
  },
  positionals: [1, 1000],
  async run(invocation) {
    const time = invocation.flag('kill') ? 0 : optionValue(invocation, 'time', TIME);
    await using connection = await connect(invocation);
    return await eachNamed(invocation, (named) => stop(connection.client, named, time));
  },
};

export const containerKill: Command = {
  words: ['container', 'kill'],
  summary: 'Send a signal to the first process of containers',
  usage: 'CONTAINER…',
  examples: ['imgcred container kill --signal HUP web'],
  options: {
    signal: { value: 'SIGNAL', takes: SIGNAL, short: 's', help: 'name or number (KILL)' },
    ...CONNECTION_OPTIONS,
  },
  positionals: [1, 1000],
  async run(invocation) {
    const signal = optionValue(invocation, 'signal', SIGNAL) ?? 'KILL';
    await using connection = await connect(invocation);
    return await eachNamed(invocation, async (named) => {
      await connection.client.fetch('POST', `${containerPath(named)}/kill`, { signal });
    });
  },
};

export const containerRemove: Command = {
  words: ['container', 'rm'],
  summary: 'Forget containers that have ended, with their logs',
  usage: 'CONTAINER…',
  examples: ['imgcred container rm web', 'imgcred container rm --force web'],
  options: { force: { short: 'f', help: 'kill those that have not ended' }, ...CONNECTION_OPTIONS },
  positionals: [1, 1000],
  async run(invocation) {
    await using connection = await connect(invocation);
    const { client } = connection;
    return await eachNamed(invocation, async (named) => {
      const id = invocation.flag('force') ? await stop(client, named, 0) : named;
      await client.fetch('DELETE', containerPath(id));
    });
  },
};

/**
 * Asks for a container's end and waits for it: for its own stop timeout or `seconds`, whichever is less, and after
 * SIGKILL for as long as a report may take.
 *
 * @returns its id: its name is free once it has ended
 * @throws ImgcredError CONTAINER_FAILED where it has not ended by then
 */
async function stop(client: ApiClient, named: string, seconds: number | undefined): Promise<string> {
  const { id, worker, overrides } = await client.json(stoppable, 'GET', containerPath(named));
  const own = overrides.stop_timeout ?? DEFAULT_STOP_TIMEOUT_S;
  const ask = (kill: boolean) => client.fetch('POST', `${containerPath(id)}/stop`, { kill });
  if (seconds === 0) await ask(true);
  else {
    await ask(false);
    if (seconds !== undefined && seconds < own) {
      if (await endsWithin(client, id, seconds * 1000)) return id;
      await ask(true);
    }
  }
  const limit = seconds === undefined || seconds >= own ? own * 1000 : 0;
  if (await endsWithin(client, id, limit + MARGIN_MS)) return id;
  const where = worker === null ? '' : `; the worker ${worker} has not told of its end`;
  throw new ImgcredError('CONTAINER_FAILED', `${named} was asked to end and has not ended${where}`, {
    hint: `it ends when its worker hears of it: see imgcred container show ${id}, imgcred worker ls`,
  });
}

async function endsWithin(client: ApiClient, id: string, ms: number): Promise<boolean> {
  const limit = AbortSignal.timeout(ms);
  try {
    await client.fetch('GET', `${containerPath(id)}?wait=true`, undefined, limit);
    return true;
  } catch (thrown) {
    if (limit.aborted) return false;
    throw thrown;
  }
}
