import { z } from 'zod';
import { ImgcredError } from '../../errors/index.ts';
import { generateKeyLine } from '../../secrets/index.ts';
import type { Command } from '../command.ts';
import { CONNECTION_OPTIONS, connect, ROLE_OPTIONS } from '../context.ts';
import { print, printJson } from '../output.ts';
import { formatTable } from '../table.ts';

const OPTIONS = { ...CONNECTION_OPTIONS, 'master-key-file': ROLE_OPTIONS['master-key-file'] };
const named = (words: readonly string[], summary: string, usage: string, example: string) => ({
  words,
  summary,
  ...(usage === '' ? {} : { usage }),
  examples: [example],
});

export const workspaceCreate: Command = {
  ...named(
    ['workspace', 'create'],
    'Make a workspace, with an encryption key of its own',
    'NAME',
    'imgcred workspace create team-a',
  ),
  options: OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const shape = z.looseObject({ id: z.string(), name: z.string() });
    const made = await connection.client.json(shape, 'POST', '/v1/workspaces', {
      name: invocation.positionals[0],
    });
    if (invocation.flag('json')) await printJson(made);
    else await print(`${made.name} is made (${made.id})\n`);
    return 0;
  },
};

export const workspaceList: Command = {
  ...named(['workspace', 'ls'], 'List workspaces', '', 'imgcred workspace ls'),
  options: OPTIONS,
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const row = z.looseObject({ id: z.string(), name: z.string(), created_at: z.string() });
    const { workspaces } = await connection.client.json(
      z.object({ workspaces: z.array(row) }),
      'GET',
      '/v1/workspaces',
    );
    if (invocation.flag('json')) await printJson(workspaces);
    else
      await print(
        formatTable(
          ['NAME', 'ID', 'CREATED'],
          workspaces.map((entry) => [entry.name, entry.id, entry.created_at]),
        ),
      );
    return 0;
  },
};

export const workspaceRemove: Command = {
  ...named(
    ['workspace', 'rm'],
    'Delete a workspace and destroy its key: its secrets are gone for good',
    'NAME --yes',
    'imgcred workspace rm team-a --yes',
  ),
  options: { yes: { help: 'do it' }, ...OPTIONS },
  positionals: [1, 1],
  async run(invocation) {
    const name = invocation.positionals[0] ?? '';
    if (!invocation.flag('yes')) {
      throw new ImgcredError('USAGE', `deleting workspace ${name} can't be undone`, {
        hint: 'add --yes to do it',
      });
    }
    await using connection = await connect(invocation);
    await connection.client.fetch('DELETE', `/v1/workspaces/${encodeURIComponent(name)}`);
    await print(`${name}\n`);
    return 0;
  },
};

export const tokenCreate: Command = {
  ...named(
    ['token', 'create'],
    'Make an API token; it is shown this once',
    'NAME --role ROLE',
    'imgcred token create ci --role operator --expires 2027-01-01',
  ),
  options: {
    role: { value: 'ROLE', help: 'admin, operator, runner or worker' },
    expires: { value: 'TIME', help: 'when it expires (ISO 8601); never otherwise' },
    unbound: { help: 'not bound to the workspace (role admin)' },
    ...OPTIONS,
  },
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const shape = z.looseObject({ token: z.string() });
    const role = invocation.text('role');
    if (role === undefined) {
      throw new ImgcredError('USAGE', 'imgcred token create: --role is missing', {
        hint: 'one of admin, operator, runner, worker',
      });
    }
    const expires = invocation.text('expires');
    const made = await connection.client.json(shape, 'POST', '/v1/tokens', {
      name: invocation.positionals[0],
      role,
      ...(invocation.flag('unbound') ? { unbound: true } : {}),
      ...(expires === undefined ? {} : { expires_at: expires }),
    });
    if (invocation.flag('json')) await printJson(made);
    else await print(`${made.token}\n`);
    return 0;
  },
};

export const tokenList: Command = {
  ...named(['token', 'ls'], 'List API tokens, without their values', '', 'imgcred token ls'),
  options: OPTIONS,
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const row = z.looseObject({
      id: z.string(),
      name: z.string(),
      role: z.string(),
      workspace_id: z.string().nullable(),
      expires_at: z.string().nullable(),
      revoked_at: z.string().nullable(),
      last_used_at: z.string().nullable(),
    });
    const { tokens } = await connection.client.json(z.object({ tokens: z.array(row) }), 'GET', '/v1/tokens');
    if (invocation.flag('json')) await printJson(tokens);
    else {
      const rows = tokens.map((token) => [
        token.id,
        token.name,
        token.role,
        token.workspace_id ?? 'any',
        token.revoked_at === null ? (token.expires_at ?? 'never') : 'revoked',
        token.last_used_at ?? '-',
      ]);
      await print(formatTable(['ID', 'NAME', 'ROLE', 'WORKSPACE', 'EXPIRES', 'LAST USED'], rows));
    }
    return 0;
  },
};

export const tokenRevoke: Command = {
  ...named(['token', 'revoke'], 'End an API token', 'TOKEN', 'imgcred token revoke ci'),
  options: OPTIONS,
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

export const keyList: Command = {
  ...named(['key', 'ls'], 'List master keys', '', 'imgcred key ls'),
  options: OPTIONS,
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const row = z.looseObject({
      id: z.string(),
      state: z.string(),
      present: z.boolean(),
      created_at: z.string(),
    });
    const { keys } = await connection.client.json(z.object({ keys: z.array(row) }), 'GET', '/v1/keys');
    if (invocation.flag('json')) await printJson(keys);
    else {
      const rows = keys.map((key) => [key.id, key.state, key.present ? 'yes' : 'no', key.created_at]);
      await print(formatTable(['ID', 'STATE', 'PRESENT', 'CREATED'], rows));
    }
    return 0;
  },
};

export const keyGenerate: Command = {
  ...named(
    ['key', 'generate'],
    'Print a new line for a master key file of your own',
    '',
    '(umask 077; imgcred key generate >> /etc/imgcred/master-key)',
  ),
  options: {},
  positionals: [0, 0],
  async run() {
    await print(`${await generateKeyLine()}\n`);
    return 0;
  },
};

export const keyRotate: Command = {
  ...named(
    ['key', 'rotate'],
    'Make a new master key the active one, and wrap every workspace key with it',
    '',
    'imgcred key rotate',
  ),
  options: OPTIONS,
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const shape = z.looseObject({ from: z.string(), to: z.string(), rewrapped: z.number() });
    const rotation = await connection.client.json(shape, 'POST', '/v1/keys/rotate', {});
    if (invocation.flag('json')) await printJson(rotation);
    else
      await print(
        `${rotation.to} is active; ${rotation.rewrapped} keys were wrapped with it. ${rotation.from} stays until it is retired\n`,
      );
    return 0;
  },
};

export const keyRetire: Command = {
  ...named(
    ['key', 'retire'],
    'Give up a master key that wraps nothing any more',
    'KEY',
    'imgcred key retire kek_…',
  ),
  options: OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    await connection.client.fetch(
      'POST',
      `/v1/keys/${encodeURIComponent(invocation.positionals[0] ?? '')}/retire`,
      {},
    );
    await print(`${invocation.positionals[0]}\n`);
    return 0;
  },
};

const event = z.looseObject({
  sequence: z.number(),
  at: z.string(),
  actor: z.string(),
  origin: z.string().nullable(),
  action: z.string(),
  secret_name: z.string().nullable(),
  secret_version: z.number().nullable(),
  container_id: z.string().nullable(),
  detail: z.record(z.string(), z.unknown()),
});

export const auditRead: Command = {
  ...named(
    ['audit'],
    'Read the audit log: who used or changed what',
    '[verify]',
    'imgcred audit --action secret.use',
  ),
  options: {
    after: { value: 'N', help: 'only events after this number' },
    limit: { value: 'N', help: 'how many at most (1000)' },
    action: { value: 'ACTION', help: 'only this action, such as secret.use' },
    everywhere: { help: 'of all workspaces' },
    ...OPTIONS,
  },
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const query = new URLSearchParams();
    for (const name of ['after', 'limit', 'action']) {
      const value = invocation.text(name);
      if (value !== undefined) query.set(name, value);
    }
    if (invocation.flag('everywhere')) query.set('everywhere', 'true');
    const { events } = await connection.client.json(
      z.object({ events: z.array(event) }),
      'GET',
      `/v1/audit?${query}`,
    );
    if (invocation.flag('json')) await printJson(events);
    else {
      const rows = events.map((entry) => [
        String(entry.sequence),
        entry.at,
        entry.actor,
        entry.action,
        entry.secret_name === null ? '-' : `${entry.secret_name}@${entry.secret_version}`,
        entry.container_id ?? '-',
        Object.entries(entry.detail)
          .map(([key, value]) => `${key}=${value}`)
          .join(' '),
      ]);
      await print(formatTable(['#', 'TIME', 'ACTOR', 'ACTION', 'SECRET', 'CONTAINER', 'DETAIL'], rows));
    }
    return 0;
  },
};

export const auditVerify: Command = {
  ...named(
    ['audit', 'verify'],
    'Check that no row of the audit log was changed, added or taken out',
    '[--head HASH]',
    'imgcred audit verify',
  ),
  options: {
    head: { value: 'HASH', help: 'a head noted earlier: nothing up to it may be missing' },
    ...OPTIONS,
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
    else if (verdict.ok) await print(`${verdict.rows} events, unbroken; head ${verdict.head}\n`);
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

export const workerList: Command = {
  ...named(['worker', 'ls'], 'List workers', '', 'imgcred worker ls'),
  options: OPTIONS,
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const row = z.looseObject({
      id: z.string(),
      name: z.string(),
      version: z.string(),
      draining: z.boolean(),
      held: z.number(),
      last_heartbeat: z.string(),
    });
    const { workers } = await connection.client.json(
      z.object({ workers: z.array(row) }),
      'GET',
      '/v1/workers',
    );
    if (invocation.flag('json')) await printJson(workers);
    else {
      const rows = workers.map((worker) => [
        worker.name,
        worker.id,
        worker.version,
        String(worker.held),
        worker.draining ? 'yes' : 'no',
        worker.last_heartbeat,
      ]);
      await print(formatTable(['NAME', 'ID', 'VERSION', 'CONTAINERS', 'DRAINING', 'LAST HEARD'], rows));
    }
    return 0;
  },
};

export const workerDrain: Command = {
  ...named(
    ['worker', 'drain'],
    'Give a worker no new containers',
    'WORKER [--undo]',
    'imgcred worker drain edge-1',
  ),
  options: { undo: { help: 'give it some again' }, ...OPTIONS },
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const path = `/v1/workers/${encodeURIComponent(invocation.positionals[0] ?? '')}/drain`;
    await connection.client.fetch('POST', path, { drain: !invocation.flag('undo') });
    await print(`${invocation.positionals[0]}\n`);
    return 0;
  },
};
