import { describe, expect, test } from 'bun:test';
import { packTrace, unpackTrace } from '../../../src/content/index.ts';
import { PACKED_TRACE_BYTES } from '../../../src/protocol/index.ts';
import { newImage } from '../database/world.ts';
import { openSchedulerWorld } from './world.ts';

type World = Awaited<ReturnType<typeof openSchedulerWorld>>;

const INDEX = 'd'.repeat(64);
const LAYER = 'a'.repeat(32);

async function openWorld() {
  const world = await openSchedulerWorld();
  const image = await world.registerImage(newImage('traced', { indexDigest: INDEX }));
  return { ...world, image };
}

const packed = (...spans: number[]) =>
  Buffer.from(
    packTrace({ spans: spans.map((span) => ({ layer: LAYER, span, starts: 1 })) }, PACKED_TRACE_BYTES),
  ).toString('base64');

function tracedSpans(trace: string | undefined): number[] {
  return trace === undefined ? [] : unpackTrace(Buffer.from(trace, 'base64')).spans.map(({ span }) => span);
}

/** Runs the image once, to its end, on a worker that reports what its start touched. */
async function run(
  world: Pick<World, 'queue' | 'start' | 'scheduler'>,
  imageId: World['image']['id'],
  worker: string,
  trace?: string,
) {
  world.queue({ imageId });
  const request = await world.start(worker);
  const { container_id, attempt } = request;
  await world.scheduler.report(worker, container_id, attempt, { kind: 'exited', exit_code: 0 });
  if (trace !== undefined) {
    const report = { kind: 'touched', index_digest: INDEX, trace } as const;
    await world.scheduler.report(worker, container_id, attempt, report);
  }
  return request;
}

describe('what a start touched', () => {
  test('comes with the next request for the image, whichever worker takes it', async () => {
    await using world = await openWorld();
    const [first, second] = [await world.register('first'), await world.register('second')];
    expect((await run(world, world.image.id, first, packed(4, 2))).trace).toBeUndefined();
    expect(tracedSpans((await run(world, world.image.id, second)).trace)).toEqual([4, 2]);
    const { trace } = await world.scheduler.requestImage({
      workspace_id: world.workspace,
      image_id: world.image.id,
      actor: 'me',
      purpose: 'mount',
    });
    expect(tracedSpans(trace)).toEqual([4, 2]);
  });

  test('is put to what earlier starts touched', async () => {
    await using world = await openWorld();
    const worker = await world.register();
    for (const trace of [packed(4, 2), packed(9, 2)]) await run(world, world.image.id, worker, trace);
    expect(tracedSpans((await run(world, world.image.id, worker)).trace)).toEqual([2, 9, 4]);
    expect(world.repositories.traces.find(INDEX)?.starts).toBe(2);
  });

  test('serves another version of the image, until that has its own', async () => {
    await using world = await openWorld();
    const worker = await world.register();
    await run(world, world.image.id, worker, packed(4));
    const next = await world.registerImage(
      newImage('traced', { indexDigest: 'e'.repeat(64), reference: 'registry.test/traced:2', tag: '2' }),
    );
    expect(tracedSpans((await run(world, next.id, worker)).trace)).toEqual([4]);
  });

  test('changes nothing of the container, and no report of it twice', async () => {
    await using world = await openWorld();
    const worker = await world.register();
    const { container_id } = await run(world, world.image.id, worker, packed(1));
    expect(world.row(container_id)).toMatchObject({ state: 'exited', exitCode: 0 });
  });

  test('is refused from a worker that did not run it, and where it makes no sense', async () => {
    await using world = await openWorld();
    const [worker, stranger] = [await world.register('mine'), await world.register('other')];
    const { container_id, attempt } = await run(world, world.image.id, worker);
    const tell = (by: string, trace: string) =>
      world.scheduler.report(by, container_id, attempt, { kind: 'touched', index_digest: INDEX, trace });
    await expect(tell(stranger, packed(1))).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(tell(worker, 'AAAA')).rejects.toMatchObject({ code: 'CORRUPT' });
    expect(world.repositories.traces.find(INDEX)).toBeUndefined();
  });

  test('of an index that no image of the workspace has is dropped', async () => {
    await using world = await openWorld();
    const worker = await world.register();
    const { container_id, attempt } = await run(world, world.image.id, worker);
    await world.scheduler.report(worker, container_id, attempt, {
      kind: 'touched',
      index_digest: 'f'.repeat(64),
      trace: packed(1),
    });
    expect(world.repositories.traces.nearest(world.image)).toBeUndefined();
  });

  test('that can not be read in the database is begun anew', async () => {
    await using world = await openWorld();
    const worker = await world.register();
    world.repositories.traces.put(world.image, { starts: 7, spans: Uint8Array.of(1, 2, 3) });
    await run(world, world.image.id, worker, packed(5));
    expect(tracedSpans((await run(world, world.image.id, worker)).trace)).toEqual([5]);
  });
});
