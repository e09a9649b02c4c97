import { z } from 'zod';
import type { Database } from '../../database/index.ts';
import { parameter, type Route, readBody, requireUnbound } from '../routing.ts';
import { iso } from '../views.ts';

export function workerRoutes(database: Database): Route[] {
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
