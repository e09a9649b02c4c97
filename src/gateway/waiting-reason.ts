import type { ContainerRow, Database, WorkerRow } from '../database/index.ts';
import { counted } from '../errors/index.ts';
import { type Demand, demandOf, fits, hasLabels, leftOf, type Supply, supplyOf } from '../protocol/index.ts';

/** A worker as a request that waits sees it. */
export interface FleetMember {
  readonly name: string;
  readonly draining: boolean;
  /** How long nothing was heard of it, ms. */
  readonly silentMs: number;
  readonly whole: Supply;
  /** What it does not have in use. */
  readonly left: Supply;
}

export function fleetOf(database: Database, now: number): FleetMember[] {
  return database.workers.list().map((worker: WorkerRow) => {
    const whole = supplyOf(worker);
    return {
      name: worker.name,
      draining: worker.draining,
      silentMs: now - worker.lastHeartbeat,
      whole,
      left: leftOf(
        whole,
        database.queue.heldBy(worker.id).map(({ spec }) => demandOf(spec)),
      ),
    };
  });
}

/**
 * Why a request waits, in one line for people; undefined where it doesn't, or will be taken at any moment.
 *
 * @param leaseMs how long a worker may be silent before it is given up
 */
export function waitingReason(
  row: Pick<ContainerRow, 'state' | 'spec' | 'notBefore'>,
  fleet: readonly FleetMember[],
  leaseMs: number,
  now: number,
): string | undefined {
  if (row.state !== 'pending') return undefined;
  if (row.notBefore > now) return `it is started again at ${new Date(row.notBefore).toISOString()}`;
  if (fleet.length === 0) return 'no worker has registered';
  const heard = fleet.filter(({ silentMs }) => silentMs < leaseMs);
  if (heard.length === 0) return `no worker was heard of in the last ${Math.round(leaseMs / 1000)} s`;
  const demand = demandOf(row.spec);
  const able = fleet.filter(({ whole }) => fits(demand, whole));
  const lack = able.length === 0 ? lackOf(demand, fleet) : undefined;
  if (lack !== undefined) return lack;
  const there = able.filter((member) => heard.includes(member));
  if (there.length === 0) return `${could(able)}, and nothing is heard of ${them(able)}`;
  const working = there.filter(({ draining }) => !draining);
  if (working.length === 0) return `${could(there)}, and ${there.length === 1 ? 'it drains' : 'they drain'}`;
  if (working.some(({ left }) => fits(demand, left))) return undefined;
  return `${could(working)}, and ${working.length === 1 ? 'it has' : 'they have'} no room now`;
}

/** What no worker has, were it ever so idle. */
function lackOf(demand: Demand, fleet: readonly FleetMember[]): string {
  for (const [name, value] of Object.entries(demand.labels)) {
    if (!fleet.some(({ whole }) => whole.labels[name] === value))
      return `no worker has the label ${name}=${value}`;
  }
  const labelled = fleet.filter(({ whole }) => hasLabels(demand, whole));
  if (labelled.length === 0) return `no worker has all of the labels ${labelsOf(demand)}`;
  const among = Object.keys(demand.labels).length === 0 ? '' : ` with ${labelsOf(demand)}`;
  const most = (of: (supply: Supply) => number) => Math.max(...labelled.map(({ whole }) => of(whole)));
  const memory = most(({ memoryBytes }) => memoryBytes);
  if (demand.memoryBytes > memory)
    return `it needs ${inMemory(demand.memoryBytes)} of memory, the largest worker${among} has ${inMemory(memory)}`;
  const cpus = most((supply) => supply.cpus);
  if (demand.cpus > cpus)
    return `it needs ${counted(demand.cpus, 'CPU')}, the largest worker${among} has ${cpus}`;
  return `no worker${among} has both ${counted(demand.cpus, 'CPU')} and ${inMemory(demand.memoryBytes)} of memory`;
}

function could(members: readonly FleetMember[]): string {
  const names = members.map(({ name }) => name);
  const shown = names.length > 3 ? `${names.length} workers` : names.join(', ');
  return members.length === 1 ? `only ${shown} could run it` : `${shown} could run it`;
}

function them(members: readonly FleetMember[]): string {
  if (members.length > 1) return 'any of them';
  return `it for ${Math.round((members[0]?.silentMs ?? 0) / 1000)} s`;
}

function labelsOf({ labels }: Demand): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(', ');
}

/** In the units that `--memory` takes. */
function inMemory(bytes: number): string {
  const gib = bytes / 2 ** 30;
  return gib >= 1 ? `${Math.round(gib * 10) / 10} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`;
}
