import { z } from 'zod';
import type { DataLayout } from '../config/index.ts';
import { ApiClient } from './api-client.ts';

const aloneSchema = z.object({ id: z.string().optional(), name: z.string() });

/**
 * Who answers on a data directory: a gateway, or a worker whose gateway is elsewhere, which answers what concerns its
 * own machine and says of the rest where it belongs. Undefined where nobody does.
 */
export async function localClient(layout: DataLayout, workspace?: string): Promise<ApiClient | undefined> {
  for (const path of [layout.socket, layout.workerSocket]) {
    const client = new ApiClient({ kind: 'socket', path }, workspace);
    if (await client.alive()) return client;
  }
  return undefined;
}

/** The worker that a process of its own runs on a data directory; undefined where none does. */
export async function loneWorker(layout: DataLayout): Promise<z.infer<typeof aloneSchema> | undefined> {
  const client = new ApiClient({ kind: 'socket', path: layout.workerSocket });
  return (await client.alive()) ? client.json(aloneSchema, 'POST', '/v1/node/worker') : undefined;
}

/** The id of that worker, once it has registered. */
export async function workerBeside(layout: DataLayout): Promise<string | undefined> {
  return (await loneWorker(layout))?.id;
}
