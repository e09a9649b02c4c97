// The thread that works on indexes, which is held at a gate once it has merged an image, before anybody hears of it.
import { readFileSync } from 'node:fs';
import { doIndexWork, type IndexOrder } from '../../../src/index/work.ts';
import { serveTask } from '../../../src/threads/index.ts';

serveTask(async (order: IndexOrder) => {
  const done = await doIndexWork(order);
  if (order.kind === 'merge') readFileSync(process.env.IMGCRED_TEST_GATE ?? '');
  return done;
});
