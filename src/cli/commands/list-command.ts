import { z } from 'zod';
import { ImgcredError } from '../../errors/index.ts';
import type { Command, Invocation, Options } from '../command.ts';
import { connect } from '../context.ts';
import { print, printJson, visible } from '../output.ts';
import { formatTable } from '../table.ts';

/** How rows are shown. */
export interface ListView<Row> {
  /** What other commands call a row by: `--quiet` prints nothing else, a line each. */
  readonly named: (row: Row) => string | readonly string[];
  readonly header: readonly string[];
  readonly cells: (row: Row) => readonly string[];
}

export interface ListOptions<Row> extends ListView<Row> {
  readonly words: readonly string[];
  readonly summary: string;
  readonly usage?: string;
  readonly description?: string;
  readonly examples: readonly string[];
  readonly options: Options;
  readonly positionals?: readonly [number, number];
  /** The route that lists. */
  readonly path: (invocation: Invocation) => string;
  /** The field of its answer that holds the rows. */
  readonly field: string;
  readonly row: z.ZodType<Row>;
}

/** Options of every command that lists, beside `--json`. */
export const LIST_OPTIONS = {
  quiet: { short: 'q', help: 'print names or ids alone, a line each' },
} satisfies Options;

/** A command that asks a route for rows, and prints them. */
export function listCommand<Row>(list: ListOptions<Row>): Command {
  return {
    words: list.words,
    summary: list.summary,
    ...(list.usage === undefined ? {} : { usage: list.usage }),
    ...(list.description === undefined ? {} : { description: list.description }),
    examples: list.examples,
    options: { ...LIST_OPTIONS, ...list.options },
    positionals: list.positionals ?? [0, 0],
    async run(invocation) {
      await using connection = await connect(invocation);
      const shape = z.object({ [list.field]: z.array(list.row) });
      const answer = await connection.client.json(shape, 'GET', list.path(invocation));
      await printList(invocation, answer[list.field] ?? [], list);
      return 0;
    },
  };
}

/**
 * Prints rows as a table, as JSON, or by their names alone.
 *
 * @throws ImgcredError USAGE where both of the latter are asked for
 */
export async function printList<Row>(
  invocation: Invocation,
  rows: readonly Row[],
  { named, header, cells }: ListView<Row>,
): Promise<void> {
  const json = invocation.flag('json');
  if (invocation.flag('quiet')) {
    if (json) throw new ImgcredError('USAGE', 'give one of --quiet and --json');
    await print(
      rows
        .flatMap(named)
        .map((name) => `${visible(name)}\n`)
        .join(''),
    );
  } else if (json) await printJson(rows);
  else await print(formatTable(header, rows.map(cells)));
}
