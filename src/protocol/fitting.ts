import { z } from 'zod';
import { containerOverridesSchema } from './container-request.ts';

/** What a container takes of a worker. What a request does not say it needs is not reserved for it. */
export interface Demand {
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Labels that the worker must have. */
  readonly labels: Readonly<Record<string, string>>;
}

/** What a worker has: all of it, or what is left. */
export interface Supply {
  readonly slots: number;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly labels: Readonly<Record<string, string>>;
}

const specSchema = z.object({
  overrides: containerOverridesSchema.pick({ cpus: true, memory_bytes: true }).strip().default({}),
  worker_labels: z.record(z.string(), z.string()).default({}),
});

/** What a stored request demands. */
export function demandOf(spec: unknown): Demand {
  const parsed = specSchema.safeParse(spec).data;
  return {
    cpus: parsed?.overrides.cpus ?? 0,
    memoryBytes: parsed?.overrides.memory_bytes ?? 0,
    labels: parsed?.worker_labels ?? {},
  };
}

/** What a worker has, as it told when it registered. */
export function supplyOf(worker: {
  readonly capacity: Readonly<Record<string, unknown>>;
  readonly labels: Readonly<Record<string, string>>;
}): Supply {
  const figure = (name: string) => {
    const value = worker.capacity[name];
    return typeof value === 'number' ? value : Number.POSITIVE_INFINITY;
  };
  return {
    slots: figure('slots'),
    cpus: figure('cpus'),
    memoryBytes: figure('memory_bytes'),
    labels: worker.labels,
  };
}

/** What is left when a worker runs these. */
export function leftOf(supply: Supply, taken: readonly Demand[]): Supply {
  const sum = (of: (demand: Demand) => number) => taken.reduce((total, demand) => total + of(demand), 0);
  return {
    ...supply,
    slots: supply.slots - taken.length,
    cpus: supply.cpus - sum(({ cpus }) => cpus),
    memoryBytes: supply.memoryBytes - sum(({ memoryBytes }) => memoryBytes),
  };
}

/** Whether what a worker has is enough. */
export function fits(demand: Demand, supply: Supply): boolean {
  return (
    supply.slots > 0 &&
    demand.cpus <= supply.cpus &&
    demand.memoryBytes <= supply.memoryBytes &&
    hasLabels(demand, supply)
  );
}

export function hasLabels({ labels }: Demand, supply: Pick<Supply, 'labels'>): boolean {
  return Object.entries(labels).every(([name, value]) => supply.labels[name] === value);
}
