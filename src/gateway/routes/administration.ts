import { z } from 'zod';
import { type Database, ROLES, type TokenRow } from '../../database/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import type { Secrets } from '../../secrets/index.ts';
import { parameter, type Route, readBody, readQuery, requireUnbound } from '../routing.ts';
import { iso, isoOrNull } from '../views.ts';
import { backupRoutes } from './backup.ts';

/** Workspaces, tokens, master keys, workers, the audit log and backups: what an admin sees to. */
export function administrationRoutes(database: Database, secrets: Secrets): Route[] {
  return [
    ...workspaceRoutes(database, secrets),
    ...tokenRoutes(secrets),
    ...keyRoutes(secrets),
    ...auditRoutes(secrets),
    ...workerRoutes(database),
    ...backupRoutes(database, secrets),
  ];
}

function workspaceRoutes(database: Database, { administration }: Secrets): Route[] {
  return [
    {
      method: 'get',
      path: '/v1/workspaces',
      role: 'admin',
      summary: 'List workspaces',
      handle: (c, { identity }) =>
        c.json({
          workspaces: database.workspaces
            .list()
            .filter((row) => identity.workspaceId === undefined || row.id === identity.workspaceId)
            .map((row) => ({ id: row.id, name: row.name, created_at: iso(row.createdAt) })),
        }),
    },
    {
      method: 'post',
      path: '/v1/workspaces',
      role: 'admin',
      summary: 'Make a workspace',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const { name } = await readBody(c, z.strictObject({ name: z.string() }));
        const row = await administration.createWorkspace(name, identity);
        return c.json({ id: row.id, name: row.name, created_at: iso(row.createdAt) }, 201);
      },
    },
    {
      method: 'delete',
      path: '/v1/workspaces/:name',
      role: 'admin',
      summary: 'Delete a workspace, and destroy its key',
      handle(c, { identity }) {
        requireUnbound(identity);
        const row = database.workspaces.get(parameter(c, 'name'));
        administration.shredWorkspace(row.id, identity);
        return c.json({ id: row.id, name: row.name });
      },
    },
  ];
}

function tokenRoutes({ tokens }: Secrets): Route[] {
  const view = (row: TokenRow) => ({
    id: row.id,
    name: row.name,
    role: row.role,
    workspace_id: row.workspaceId ?? null,
    created_by: row.createdBy,
    created_at: iso(row.createdAt),
    expires_at: isoOrNull(row.expiresAt),
    revoked_at: isoOrNull(row.revokedAt),
    last_used_at: isoOrNull(row.lastUsedAt),
  });
  return [
    {
      method: 'get',
      path: '/v1/tokens',
      role: 'admin',
      summary: 'List tokens, without their values',
      handle: (c, { identity }) => c.json({ tokens: tokens.list(identity.workspaceId).map(view) }),
    },
    {
      method: 'post',
      path: '/v1/tokens',
      role: 'admin',
      summary: 'Make a token; its value is shown this once',
      async handle(c, { identity, workspace }) {
        const shape = z.strictObject({
          name: z.string(),
          role: z.enum(ROLES),
          /** Not bound to a workspace: for the roles admin and worker. */
          unbound: z.boolean().default(false),
          expires_at: z.coerce.date().optional(),
        });
        const request = await readBody(c, shape);
        const unbound = request.unbound || request.role === 'worker';
        if (unbound) requireUnbound(identity);
        const { token, row } = tokens.create(
          {
            name: request.name,
            role: request.role,
            workspaceId: unbound ? undefined : workspace.id,
            expiresAt: request.expires_at?.getTime(),
          },
          identity,
        );
        return c.json({ ...view(row), token: token.reveal() }, 201, { 'cache-control': 'no-store' });
      },
    },
    {
      method: 'delete',
      path: '/v1/tokens/:id',
      role: 'admin',
      summary: 'Revoke a token',
      handle(c, { identity }) {
        const named = parameter(c, 'id');
        const known = tokens.list(identity.workspaceId);
        const row =
          known.find((token) => token.id === named) ??
          known.find((token) => token.name === named && token.revokedAt === undefined);
        if (row === undefined) {
          throw new ImgcredError('NOT_FOUND', `no live token ${JSON.stringify(named)}`, {
            hint: 'see `imgcred token ls`',
          });
        }
        const { id } = row;
        tokens.revoke(id, identity, identity.workspaceId);
        return c.json({ id });
      },
    },
  ];
}

function keyRoutes({ keyring, administration }: Secrets): Route[] {
  return [
    {
      method: 'get',
      path: '/v1/keys',
      role: 'admin',
      summary: 'List master keys, without their bytes',
      handle(c, { identity }) {
        requireUnbound(identity);
        const keys = keyring.list().map((key) => ({
          id: key.id,
          state: key.state,
          present: key.present,
          created_at: iso(key.createdAt),
          retired_at: isoOrNull(key.retiredAt),
        }));
        return c.json({ keys });
      },
    },
    {
      method: 'post',
      path: '/v1/keys/rotate',
      role: 'admin',
      summary: 'Make a new master key the active one, and wrap all workspace keys with it',
      async handle(c, { identity }) {
        requireUnbound(identity);
        // Not ended with the client's connection: half of the keys would wait for the next start.
        return c.json(await administration.rotateMasterKey(identity));
      },
    },
    {
      method: 'post',
      path: '/v1/keys/:id/retire',
      role: 'admin',
      summary: 'Give up a master key that wraps nothing any more',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const id = parameter(c, 'id');
        await administration.retireMasterKey(id, identity);
        return c.json({ id });
      },
    },
  ];
}

function auditRoutes({ audit }: Secrets): Route[] {
  return [
    {
      method: 'get',
      path: '/v1/audit',
      role: 'admin',
      summary: 'Read the audit log',
      handle(c, { identity, workspace }) {
        const query = readQuery(
          c,
          z.object({
            after: z.coerce.number().int().min(0).optional(),
            limit: z.coerce.number().int().min(1).max(10_000).default(1000),
            action: z.string().optional(),
            everywhere: z.enum(['true', 'false']).default('false'),
          }),
        );
        const everywhere = query.everywhere === 'true' && identity.workspaceId === undefined;
        const rows = audit.list({
          ...(everywhere ? {} : { workspaceId: workspace.id }),
          after: query.after,
          limit: query.limit,
          action: query.action,
        });
        return c.json({
          events: rows.map((row) => ({
            sequence: row.sequence,
            at: iso(row.at),
            workspace_id: row.workspaceId ?? null,
            actor: row.actor,
            origin: row.origin ?? null,
            action: row.action,
            secret_id: row.secretId ?? null,
            secret_name: row.secretName ?? null,
            secret_version: row.secretVersion ?? null,
            container_id: row.containerId ?? null,
            detail: row.detail,
            hash: Buffer.from(row.hash).toString('hex'),
          })),
        });
      },
    },
    {
      method: 'get',
      path: '/v1/audit/verify',
      role: 'admin',
      summary: 'Check the audit log’s chain of hashes',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const { head } = readQuery(
          c,
          z.object({
            head: z
              .string()
              .regex(/^[0-9a-f]{64}$/)
              .optional(),
          }),
        );
        return c.json(await audit.verify(head, c.req.raw.signal));
      },
    },
  ];
}

function workerRoutes(database: Database): Route[] {
  return [
    {
      method: 'get',
      path: '/v1/workers',
      role: 'admin',
      summary: 'List workers',
      handle(c, { identity }) {
        requireUnbound(identity);
        const workers = database.workers.list().map((row) => ({
          id: row.id,
          name: row.name,
          version: row.version,
          capacity: row.capacity,
          labels: row.labels,
          draining: row.draining,
          held: database.queue.heldBy(row.id).length,
          last_heartbeat: iso(row.lastHeartbeat),
        }));
        return c.json({ workers });
      },
    },
    {
      method: 'post',
      path: '/v1/workers/:name/drain',
      role: 'admin',
      summary: 'Give a worker no new requests; with drain=false, give it some again',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const { drain } = await readBody(c, z.strictObject({ drain: z.boolean().default(true) }));
        const worker = database.workers.get(parameter(c, 'name'));
        database.workers.setDraining(worker.id, drain);
        return c.json({ id: worker.id, name: worker.name, draining: drain });
      },
    },
  ];
}
