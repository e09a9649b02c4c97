import { z } from 'zod';
import { ImgcredError } from '../../errors/index.ts';
import type { Command } from '../command.ts';
import { ADMIN_OPTIONS, connect } from '../context.ts';
import { parseDuration } from '../duration.ts';
import { oneOf, optionValue, type ValueKind } from '../option-values.ts';
import { print, printJson } from '../output.ts';
import { parseTime } from '../since-option.ts';
import { listCommand } from './list-command.ts';

const ROLE = oneOf('admin', 'operator', 'runner', 'worker');

/** Milliseconds since 1970. */
const EXPIRES: ValueKind<number> = {
  must: 'be a time to come: ISO 8601, or how long from now (12h, 30d)',
  example: '30d',
  parse(text) {
    const now = Date.now();
    const duration = parseDuration(text);
    const time = duration === undefined ? parseTime(text) : now + duration;
    return time !== undefined && time > now ? time : undefined;
  },
};

export const tokenCreate: Command = {
  words: ['token', 'create'],
  summary: 'Make an API token; it is shown this once',
  usage: 'NAME --role ROLE',
  description:
    'A token of role worker is for one worker: the first that registers with it. With --reusable, any number of new ones may; none of them can speak for another.',
  examples: [
    'imgcred token create ci --role operator --expires 2027-01-01',
    'imgcred token create edge-1 --role worker',
    'imgcred token create fleet --role worker --reusable --expires 2026-12-01',
  ],
  options: {
    role: { value: 'ROLE', takes: ROLE, help: 'admin, operator, runner or worker' },
    expires: {
      value: 'TIME',
      takes: EXPIRES,
      help: 'when it expires: ISO 8601, or how long from now (30d); never otherwise',
    },
    unbound: { help: 'not bound to the workspace (role admin)' },
    reusable: { help: 'for any number of workers, not the first one alone (role worker)' },
    ...ADMIN_OPTIONS,
  },
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const shape = z.looseObject({ token: z.string() });
    const role = optionValue(invocation, 'role', ROLE);
    if (role === undefined) {
      throw new ImgcredError('USAGE', 'imgcred token create: --role is missing', {
        hint: 'one of admin, operator, runner, worker',
      });
    }
    const expires = optionValue(invocation, 'expires', EXPIRES);
    const made = await connection.client.json(shape, 'POST', '/v1/tokens', {
      name: invocation.positionals[0],
      role,
      ...(invocation.flag('unbound') ? { unbound: true } : {}),
      ...(invocation.flag('reusable') ? { reusable: true } : {}),
      ...(expires === undefined ? {} : { expires_at: new Date(expires).toISOString() }),
    });
    if (invocation.flag('json')) await printJson(made);
    else await print(`${made.token}\n`);
    return 0;
  },
};

export const tokenRevoke: Command = {
  words: ['token', 'revoke'],
  summary: 'End an API token',
  usage: 'TOKEN',
  examples: ['imgcred token revoke ci'],
  options: ADMIN_OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    await connection.client.fetch(
      'DELETE',
      `/v1/tokens/${encodeURIComponent(invocation.positionals[0] ?? '')}`,
    );
    await print(`${invocation.positionals[0]}\n`);
    return 0;
  },
};

export const tokenList = listCommand({
  words: ['token', 'ls'],
  summary: 'List API tokens, without their values',
  examples: ['imgcred token ls'],
  options: ADMIN_OPTIONS,
  path: () => '/v1/tokens',
  field: 'tokens',
  row: z.looseObject({
    id: z.string(),
    name: z.string(),
    role: z.string(),
    workspace_id: z.string().nullable(),
    for_worker: z.string().nullable(),
    expires_at: z.string().nullable(),
    revoked_at: z.string().nullable(),
    last_used_at: z.string().nullable(),
  }),
  named: (token) => token.id,
  header: ['ID', 'NAME', 'ROLE', 'WORKSPACE', 'WORKER', 'EXPIRES', 'LAST USED'],
  cells: (token) => [
    token.id,
    token.name,
    token.role,
    token.workspace_id ?? 'any',
    token.role === 'worker' ? (token.for_worker ?? 'any') : '-',
    token.revoked_at === null ? (token.expires_at ?? 'never') : 'revoked',
    token.last_used_at ?? '-',
  ],
});
