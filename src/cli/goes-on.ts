import { type ContainerId, type Database, isFinal } from '../database/index.ts';
import { fleetOf, waitingReason } from '../gateway/index.ts';

/**
 * Whether a container needs no server for now: its supervisor sees to one that runs, and what nobody here can run waits
 * as well without us. One that is to be started again needs somebody to do that: who began it, that is.
 *
 * @param earlier those that had not ended when this server began
 */
export function goesOn(
  database: Database,
  id: ContainerId,
  earlier: ReadonlySet<string>,
  leaseMs: number,
): boolean {
  const row = database.queue.find(id);
  if (row === undefined || isFinal(row.state)) return true;
  if (row.restartPolicy !== 'no' && !earlier.has(id)) return false;
  if (row.state === 'running') return true;
  const now = Date.now();
  return waitingReason(row, fleetOf(database, now), leaseMs, now) !== undefined;
}
