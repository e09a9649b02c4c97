import { expect, test } from 'bun:test';
import { parseId } from '../../../src/database/index.ts';
import { addImage, addWorkspace, openWorld } from './world.ts';

function worldWithContainer() {
  const world = openWorld();
  const workspace = world.database.workspace(addWorkspace(world.database, 'default'));
  const image = addImage(world.database, workspace.id, 'app');
  const create = (name: string) =>
    workspace.containers.create({ imageId: image.id, imageReference: image.reference, name, spec: {} })
      .container;
  const worker = world.database.workers.register({
    name: 'one',
    capacity: {},
    labels: {},
    version: 'x',
    instance: 'instance-of-one-',
  });
  return { world, workspace, create, worker };
}

test('every change of a state is an event, in its order, and nothing else is', () => {
  const { world, workspace, create, worker } = worldWithContainer();
  using _ = world;
  const { id } = create('web');
  const { queue } = world.database;
  const { attempt } = queue.claim(id, worker.id, 1000) ?? { attempt: 0 };
  const holder = { workerId: worker.id, attempt };
  queue.transition(id, 'preparing', holder);
  queue.transition(id, 'running', holder);
  queue.renewLeases(worker.id, [{ containerId: id, attempt }], 5000);
  queue.noteFetch(id, holder, { bytes: 1 });
  workspace.containers.requestStop(id, 'stopped');
  workspace.containers.requestStop(id, 'killed', true);
  queue.transition(id, 'exited', holder, { exitCode: 3, reason: 'why' });
  workspace.containers.delete(id);
  const events = workspace.events.after(0, 100);
  expect(events.map(({ state }) => state)).toEqual([
    'pending',
    'assigned',
    'preparing',
    'running',
    'stopping',
    'exited',
    'removed',
  ]);
  expect(events.map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect(events[5]).toMatchObject({
    containerId: id,
    name: 'web',
    exitCode: 3,
    reason: 'why',
    workerId: worker.id,
  });
  expect(workspace.events.last()).toBe(7);
});

test('who comes back with a number gets what came after it, of one container where it is named', () => {
  const { world, workspace, create } = worldWithContainer();
  using _ = world;
  const [first, second] = [create('a'), create('b')];
  expect(workspace.events.after(1, 10).map(({ containerId }) => containerId)).toEqual([second.id]);
  expect(workspace.events.after(0, 10, first.id)).toHaveLength(1);
  // Of no container: ids of one millisecond follow each other, so that a neighbour's may be another's.
  expect(workspace.events.after(0, 10, parseId('ctr', `ctr_${'0'.repeat(26)}`))).toEqual([]);
});

test('a change that is rolled back is no event', () => {
  const { world, workspace, create } = worldWithContainer();
  using _ = world;
  expect(() =>
    world.database.transaction(() => {
      create('never');
      throw new Error('rolled back');
    }),
  ).toThrow('rolled back');
  expect(workspace.events.last()).toBe(0);
});

test('a claim that takes over a lapsed one is an event of its own', () => {
  const { world, workspace, create, worker } = worldWithContainer();
  using _ = world;
  const { id } = create('web');
  world.database.queue.claim(id, worker.id, 0);
  world.database.queue.claim(id, worker.id, 1000);
  expect(workspace.events.after(0, 10).map(({ state, attempt }) => [state, attempt])).toEqual([
    ['pending', 0],
    ['assigned', 1],
    ['assigned', 2],
  ]);
});

test('a workspace that is deleted takes its events with it', () => {
  const { world, workspace, create } = worldWithContainer();
  using _ = world;
  create('web');
  expect(world.database.workspaces.delete(workspace.id)).toBe(true);
  expect(workspace.events.after(0, 10)).toEqual([]);
  expect(workspace.events.lostAfter(0)).toBe(false);
});
