import type { Database } from '../../database/index.ts';
import type { LogStore } from '../../logs/index.ts';
import type { Secrets } from '../../secrets/index.ts';
import type { Route } from '../routing.ts';
import { auditRoutes } from './audit.ts';
import { backupRoutes } from './backup.ts';
import { keyRoutes } from './keys.ts';
import { tokenRoutes } from './tokens.ts';
import { workerRoutes } from './workers.ts';
import { workspaceRoutes } from './workspaces.ts';

/** Workspaces, tokens, master keys, workers, the audit log and backups: what an admin sees to. */
export function administrationRoutes(
  database: Database,
  secrets: Secrets,
  logs: LogStore,
  leaseMs: number,
  now?: () => number,
): Route[] {
  return [
    ...workspaceRoutes(database, secrets, logs),
    ...tokenRoutes(secrets),
    ...keyRoutes(secrets),
    ...auditRoutes(secrets),
    ...workerRoutes({ database, secrets, leaseMs, ...(now === undefined ? {} : { now }) }),
    ...backupRoutes(database, secrets),
  ];
}
