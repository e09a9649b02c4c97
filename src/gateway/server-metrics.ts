import { VERSION } from '../config/index.ts';
import type { Database } from '../database/index.ts';
import { type MetricFamily, samplesOf } from '../observability/index.ts';

/** What the database knows, in figures: containers by state, the queue, workers. */
export function serverMetrics(database: Database, now: () => number = Date.now): MetricFamily[] {
  const workers = database.workers.list();
  const byWorker = (value: (worker: (typeof workers)[number]) => number) =>
    workers.map((worker) => ({ labels: { worker: worker.name }, value: value(worker) }));
  const waitingSince = database.queue.waitingSince();
  return [
    {
      name: 'imgcred_containers',
      type: 'gauge',
      help: 'Containers by state; those that have ended count until they are forgotten.',
      samples: samplesOf('state', database.queue.counts()),
    },
    {
      name: 'imgcred_queue_age_seconds',
      type: 'gauge',
      help: 'How long the oldest container that waits for a worker has waited; 0 where none does.',
      samples: [{ value: waitingSince === undefined ? 0 : (now() - waitingSince) / 1000 }],
    },
    {
      name: 'imgcred_worker_last_heartbeat_seconds',
      type: 'gauge',
      help: 'When a worker was last heard of, in seconds since 1970.',
      samples: byWorker((worker) => worker.lastHeartbeat / 1000),
    },
    {
      name: 'imgcred_worker_draining',
      type: 'gauge',
      help: '1 for a worker that gets no new containers.',
      samples: byWorker((worker) => (worker.draining ? 1 : 0)),
    },
    {
      name: 'imgcred_worker_containers',
      type: 'gauge',
      help: 'Containers that a worker holds.',
      samples: byWorker((worker) => database.queue.heldBy(worker.id).length),
    },
  ];
}

/** Which version this is, as metrics tell it. */
export function versionMetric(): MetricFamily {
  return {
    name: 'imgcred_build_info',
    type: 'gauge',
    help: 'Always 1; the version stands in the label.',
    samples: [{ labels: { version: VERSION }, value: 1 }],
  };
}
