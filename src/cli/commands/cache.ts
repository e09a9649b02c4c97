import { formatBytes } from '../../config/index.ts';
import { counted } from '../../errors/index.ts';
import { type CacheView, cacheViewSchema, prunedCacheSchema } from '../../protocol/index.ts';
import type { Command, Invocation } from '../command.ts';
import { CONNECTION_OPTIONS, ROLE_OPTIONS } from '../context.ts';
import { DURATION } from '../duration.ts';
import { optionValue, SIZE } from '../option-values.ts';
import { print, printJson } from '../output.ts';
import { formatAge, formatTable } from '../table.ts';
import { connectToNode, onWorker, WORKER_OPTION } from '../worker-option.ts';
import { LIST_OPTIONS, printList } from './list-command.ts';

export const cacheList: Command = {
  words: ['cache', 'ls'],
  summary: 'List what is in a machine’s content cache',
  examples: ['imgcred cache ls'],
  options: { ...LIST_OPTIONS, ...WORKER_OPTION, ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  positionals: [0, 0],
  async run(invocation) {
    const { entries } = await ask(invocation);
    await printList(invocation, entries, {
      named: (entry) => entry.digest,
      header: ['KIND', 'DIGEST', 'SIZE', 'WHOLE', 'LAST USED', 'IN USE'],
      cells: (entry) => [
        entry.kind,
        entry.digest,
        formatBytes(entry.bytes),
        entry.full_bytes === undefined ? '-' : formatBytes(entry.full_bytes),
        formatAge(Date.parse(entry.last_used), Date.now()),
        entry.live ? 'yes' : 'no',
      ],
    });
    return 0;
  },
};

export const cacheStat: Command = {
  words: ['cache', 'stat'],
  summary: 'Show the size of a machine’s content cache',
  examples: ['imgcred cache stat', 'imgcred cache stat --worker edge-1'],
  options: { ...WORKER_OPTION, ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  positionals: [0, 0],
  async run(invocation) {
    const { status } = await ask(invocation);
    if (invocation.flag('json')) await printJson(status);
    else {
      await print(
        formatTable(
          ['DIRECTORY', status.directory],
          [
            ['size', formatBytes(status.bytes)],
            ['in use', formatBytes(status.live_bytes)],
            ['limit', status.limit_bytes === undefined ? 'none' : formatBytes(status.limit_bytes)],
            ['layers', String(status.layers)],
            ['files', String(status.files)],
            ['pinned images', String(status.pinned_images)],
            ['keeping', status.not_keeping === undefined ? 'yes' : `no: ${status.not_keeping}`],
          ],
        ),
      );
    }
    return 0;
  },
};

export const cachePrune: Command = {
  words: ['cache', 'prune'],
  summary: 'Delete cached content that no mount and no pin holds; what is needed again is fetched again',
  usage: '[--to SIZE] [--unused-for DURATION]',
  examples: ['imgcred cache prune', 'imgcred cache prune --to 10GB', 'imgcred cache prune --unused-for 7d'],
  options: {
    to: {
      value: 'SIZE',
      takes: SIZE,
      help: 'only the longest unused, until the cache is no larger than this',
    },
    'unused-for': {
      value: 'DURATION',
      takes: DURATION,
      help: 'only what was not used for so long: 30m, 12h, 7d',
    },
    ...WORKER_OPTION,
    ...CONNECTION_OPTIONS,
    ...ROLE_OPTIONS,
  },
  positionals: [0, 0],
  async run(invocation) {
    const to = optionValue(invocation, 'to', SIZE);
    const unusedFor = optionValue(invocation, 'unused-for', DURATION);
    const body = {
      ...(to === undefined ? {} : { to_bytes: to }),
      ...(unusedFor === undefined ? {} : { unused_for_ms: unusedFor }),
    };
    await using connection = await connectToNode(invocation);
    const pruned = await connection.client.json(
      prunedCacheSchema,
      'POST',
      onWorker(invocation, '/v1/node/cache/prune'),
      body,
    );
    if (invocation.flag('json')) await printJson(pruned);
    else await print(`freed ${formatBytes(pruned.bytes)} in ${counted(pruned.entries, 'file')}\n`);
    return 0;
  },
};

async function ask(invocation: Invocation): Promise<CacheView> {
  await using connection = await connectToNode(invocation);
  return await connection.client.json(cacheViewSchema, 'GET', onWorker(invocation, '/v1/node/cache'));
}
