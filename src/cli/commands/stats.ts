import { z } from 'zod';
import { formatBytes } from '../../config/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import type { ApiClient } from '../api-client.ts';
import { containerShape } from '../api-shapes.ts';
import type { Command } from '../command.ts';
import { CONNECTION_OPTIONS, connect } from '../context.ts';
import { print } from '../output.ts';
import { formatTable } from '../table.ts';

const sampleSchema = z.looseObject({
  id: z.string(),
  name: z.string().nullable(),
  /** Milliseconds since 1970. */
  time: z.number(),
  started_at: z.number().nullable(),
  cpu_ms: z.number().nullable(),
  memory_bytes: z.number().nullable(),
  memory_limit_bytes: z.number().nullable(),
  processes: z.number().nullable(),
});
type Sample = z.infer<typeof sampleSchema>;

const EVERY_MS = 1000;
const CLEAR_SCREEN = '\x1b[H\x1b[2J';

export const containerStats: Command = {
  words: ['container', 'stats'],
  summary: 'Show what running containers use: processor, memory, processes',
  usage: '[CONTAINER…]',
  description:
    'Once a second until the containers have ended; all that run, where none is named. CPU is that of the last second,\n' +
    'and with --no-stream that since the start.',
  examples: ['imgcred container stats', 'imgcred container stats --no-stream --json web'],
  options: { 'no-stream': { help: 'print once' }, ...CONNECTION_OPTIONS },
  positionals: [0, 1000],
  async run(invocation) {
    await using connection = await connect(invocation);
    const { client } = connection;
    const named = invocation.positionals;
    const once = invocation.flag('no-stream');
    const terminal = process.stdout.isTTY === true && !once;
    let before = new Map<string, Sample>();
    for (;;) {
      const samples = await take(client, named, before.size > 0);
      if (samples.length === 0 && named.length > 0) return 0;
      const rows = samples.map((sample) => ({
        ...sample,
        cpu_percent: cpuOf(sample, before.get(sample.id)),
      }));
      if (invocation.flag('json')) await print(`${JSON.stringify(rows)}\n`);
      else {
        const header = ['ID', 'NAME', 'CPU', 'MEMORY', 'LIMIT', 'PROCESSES'];
        await print((terminal ? CLEAR_SCREEN : '') + formatTable(header, rows.map(cellsOf)));
      }
      if (once) return 0;
      before = new Map(samples.map((sample) => [sample.id, sample]));
      await Bun.sleep(EVERY_MS);
    }
  },
};

/** @param again whether to leave out what has ended instead of saying so */
async function take(client: ApiClient, named: readonly string[], again: boolean): Promise<Sample[]> {
  const wanted = named.length > 0 ? named : await running(client);
  const sample = async (id: string): Promise<Sample | undefined> => {
    try {
      return await client.json(sampleSchema, 'GET', `/v1/containers/${encodeURIComponent(id)}/stats`);
    } catch (thrown) {
      const passing = named.length === 0 || again;
      const gone = thrown instanceof ImgcredError && ['CONTAINER_FAILED', 'NOT_FOUND'].includes(thrown.code);
      // A worker that is cut off keeps nobody from seeing the others' containers.
      const cutOff =
        thrown instanceof ImgcredError && thrown.code === 'SERVER_UNREACHABLE' && named.length === 0;
      if ((passing && gone) || cutOff) return undefined;
      throw thrown;
    }
  };
  return (await Promise.all(wanted.map(sample))).filter((each) => each !== undefined);
}

async function running(client: ApiClient): Promise<string[]> {
  const shape = z.object({ containers: z.array(containerShape) });
  const { containers } = await client.json(shape, 'GET', '/v1/containers');
  return containers.filter(({ state }) => state === 'running' || state === 'stopping').map(({ id }) => id);
}

function cpuOf(sample: Sample, before: Sample | undefined): number | null {
  if (sample.cpu_ms === null) return null;
  const since = before === undefined ? sample.started_at : before.time;
  if (since === null || sample.time <= since) return null;
  const used = sample.cpu_ms - (before?.cpu_ms ?? 0);
  return Math.round((Math.max(0, used) / (sample.time - since)) * 1000) / 10;
}

function cellsOf(row: Sample & { readonly cpu_percent: number | null }): string[] {
  const bytes = (value: number | null) => (value === null ? '-' : formatBytes(value));
  return [
    row.id,
    row.name ?? '-',
    row.cpu_percent === null ? '-' : `${row.cpu_percent.toFixed(1)} %`,
    bytes(row.memory_bytes),
    bytes(row.memory_limit_bytes),
    row.processes === null ? '-' : String(row.processes),
  ];
}
