import { z } from 'zod';
import type { Database, WorkerRow } from '../../database/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import type { Secrets } from '../../secrets/index.ts';
import { parameter, type Route, readBody, requireUnbound } from '../routing.ts';
import { iso } from '../views.ts';

export interface WorkerRoutesOptions {
  readonly database: Database;
  readonly secrets: Pick<Secrets, 'audit' | 'tokens'>;
  /** How long after its last heartbeat a worker counts as living, ms. */
  readonly leaseMs: number;
  readonly now?: () => number;
}

export function workerRoutes({ database, secrets, leaseMs, now = Date.now }: WorkerRoutesOptions): Route[] {
  const lives = (row: WorkerRow) => now() - row.lastHeartbeat < leaseMs;
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
          /** SHA-256 of the key that it is known by; null for the server's own. */
          key: row.identityKey === undefined ? null : fingerprint(row.identityKey),
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
    {
      method: 'delete',
      path: '/v1/workers/:name',
      role: 'admin',
      summary: 'Forget a worker that is no more, and end the tokens that are its own',
      handle(c, { identity }) {
        requireUnbound(identity);
        const worker = database.workers.get(parameter(c, 'name'));
        if (lives(worker)) {
          throw new ImgcredError('CONFLICT', `the worker ${worker.name} lives`, {
            hint: `stop it, or revoke its token, and wait ${Math.ceil(leaseMs / 1000)} s`,
          });
        }
        database.transaction(() => {
          database.workers.delete(worker.id);
          secrets.tokens.revokeOfWorker(worker.id, identity);
          secrets.audit.append({
            actor: identity.actor,
            origin: identity.origin,
            action: 'worker.remove',
            detail: { worker: worker.id, name: worker.name },
          });
        });
        return c.json({ id: worker.id, name: worker.name });
      },
    },
  ];
}

function fingerprint(key: Uint8Array): string {
  return `sha256:${new Bun.CryptoHasher('sha256').update(key).digest('hex')}`;
}
