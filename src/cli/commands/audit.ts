import { z } from 'zod';
import { counted, ImgcredError } from '../../errors/index.ts';
import type { Command } from '../command.ts';
import { ADMIN_OPTIONS, connect } from '../context.ts';
import { type ValueKind, wholeNumber } from '../option-values.ts';
import { print, printJson } from '../output.ts';
import { listCommand } from './list-command.ts';

const HEAD: ValueKind<string> = {
  must: 'be a head that `imgcred audit verify` printed: 64 hexadecimal digits',
  parse: (text) => (/^[0-9a-f]{64}$/.test(text) ? text : undefined),
};

export const auditVerify: Command = {
  words: ['audit', 'verify'],
  summary: 'Check that no row of the audit log was changed, added or taken out',
  usage: '[--head HASH]',
  examples: ['imgcred audit verify'],
  options: {
    head: {
      value: 'HASH',
      takes: HEAD,
      help: 'a head noted earlier: nothing up to it may be missing',
    },
    ...ADMIN_OPTIONS,
  },
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const shape = z.looseObject({
      ok: z.boolean(),
      rows: z.number(),
      head: z.string().optional(),
      sequence: z.number().optional(),
      problem: z.string().optional(),
    });
    const head = invocation.text('head');
    const verdict = await connection.client.json(
      shape,
      'GET',
      `/v1/audit/verify${head === undefined ? '' : `?head=${encodeURIComponent(head)}`}`,
    );
    if (invocation.flag('json')) await printJson(verdict);
    else if (verdict.ok) await print(`${counted(verdict.rows, 'event')}, unbroken; head ${verdict.head}\n`);
    if (!verdict.ok) {
      throw new ImgcredError(
        'CORRUPT',
        `the audit log is broken at event ${verdict.sequence}: ${verdict.problem}`,
        {
          hint: 'compare it with a backup',
        },
      );
    }
    return 0;
  },
};

export const auditRead = listCommand({
  words: ['audit'],
  summary: 'Read the audit log: who used or changed what',
  usage: '[verify]',
  examples: ['imgcred audit --action secret.use'],
  options: {
    after: { value: 'N', takes: wholeNumber({ least: 0 }, '120'), help: 'only events after this number' },
    limit: {
      value: 'N',
      takes: wholeNumber({ least: 1, most: 10_000 }, '50'),
      help: 'how many at most (1000)',
    },
    action: { value: 'ACTION', help: 'only this action, such as secret.use' },
    everywhere: { help: 'of all workspaces' },
    ...ADMIN_OPTIONS,
  },
  path(invocation) {
    const query = new URLSearchParams();
    for (const name of ['after', 'limit', 'action']) {
      const value = invocation.text(name);
      if (value !== undefined) query.set(name, value);
    }
    if (invocation.flag('everywhere')) query.set('everywhere', 'true');
    return `/v1/audit?${query}`;
  },
  field: 'events',
  row: z.looseObject({
    sequence: z.number(),
    at: z.string(),
    actor: z.string(),
    origin: z.string().nullable(),
    action: z.string(),
    secret_name: z.string().nullable(),
    secret_version: z.number().nullable(),
    container_id: z.string().nullable(),
    detail: z.record(z.string(), z.unknown()),
  }),
  named: (event) => String(event.sequence),
  header: ['#', 'TIME', 'ACTOR', 'ACTION', 'SECRET', 'CONTAINER', 'DETAIL'],
  cells: (event) => [
    String(event.sequence),
    event.at,
    event.actor,
    event.action,
    event.secret_name === null ? '-' : `${event.secret_name}@${event.secret_version}`,
    event.container_id ?? '-',
    Object.entries(event.detail)
      .map(([key, value]) => `${key}=${value}`)
      .join(' '),
  ],
});
