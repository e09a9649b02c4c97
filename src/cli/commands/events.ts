import { z } from 'zod';
import type { Command, Invocation } from '../command.ts';
import { CONNECTION_OPTIONS, connect } from '../context.ts';
import { optionValue, wholeNumber } from '../option-values.ts';
import { print, visible } from '../output.ts';

const lineSchema = z.discriminatedUnion('kind', [
  z.looseObject({ kind: z.literal('position'), sequence: z.number() }),
  z.looseObject({ kind: z.literal('gap'), sequence: z.number() }),
  z.looseObject({
    kind: z.literal('container'),
    sequence: z.number(),
    time: z.string(),
    container_id: z.string(),
    name: z.string().nullable(),
    image_reference: z.string(),
    state: z.string(),
    exit_code: z.number().nullable(),
    reason: z.string().nullable(),
  }),
]);
type Line = z.infer<typeof lineSchema>;

const EVENT = wholeNumber({ least: 0 }, '1234');

const OPTIONS = {
  since: {
    value: 'NUMBER',
    takes: EVENT,
    help: 'first what came after this event: nothing between is missed',
  },
  'no-follow': { help: 'end after what there is' },
  ...CONNECTION_OPTIONS,
};
const DESCRIPTION =
  'A line an event, with its number. Without --since it begins with what happens from now on, with --no-follow with\n' +
  'all that is kept. With --json the first line says from which number on nothing is missed.';

export const events: Command = {
  words: ['events'],
  summary: 'Follow what becomes of containers',
  description: DESCRIPTION,
  examples: ['imgcred events --json', 'imgcred events --since 1234', 'imgcred events --no-follow'],
  options: OPTIONS,
  positionals: [0, 0],
  run: (invocation) => follow(invocation, undefined),
};

export const containerEvents: Command = {
  words: ['container', 'events'],
  summary: 'Follow what becomes of one container, or of all',
  usage: '[CONTAINER]',
  description: DESCRIPTION,
  examples: ['imgcred container events web', 'imgcred container events --no-follow web'],
  options: OPTIONS,
  positionals: [0, 1],
  run: (invocation) => follow(invocation, invocation.positionals[0]),
};

async function follow(invocation: Invocation, container: string | undefined): Promise<number> {
  const since = optionValue(invocation, 'since', EVENT);
  await using connection = await connect(invocation);
  const query = new URLSearchParams({
    follow: String(!invocation.flag('no-follow')),
    ...(since === undefined ? {} : { since: String(since) }),
    ...(container === undefined ? {} : { container }),
  });
  const json = invocation.flag('json');
  for await (const line of connection.client.lines(lineSchema, 'GET', `/v1/events?${query}`)) {
    const text = json ? JSON.stringify(line) : textOf(line);
    if (text !== undefined) await print(`${text}\n`);
  }
  return 0;
}

function textOf(line: Line): string | undefined {
  if (line.kind === 'position') return undefined;
  if (line.kind === 'gap') return `events after ${line.sequence} are not kept any more`;
  const { sequence, time, container_id, state, exit_code, image_reference, name, reason } = line;
  const code = exit_code === null ? '' : ` (${exit_code})`;
  const why = reason === null ? '' : `: ${reason}`;
  const shown = `${state}${code} ${name ?? '-'} ${image_reference}${why}`;
  return `${sequence} ${time} ${container_id} ${visible(shown)}`;
}
