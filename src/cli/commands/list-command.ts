import { z } from 'zod';
import type { Command, Invocation, Options } from '../command.ts';
import { connect } from '../context.ts';
import { print, printJson } from '../output.ts';
import { formatTable } from '../table.ts';

export interface ListOptions<Row> {
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
  readonly header: readonly string[];
  readonly cells: (row: Row) => readonly string[];
}

/** A command that asks a route for rows, and prints them as a table or as JSON. */
export function listCommand<Row>(list: ListOptions<Row>): Command {
  return {
    words: list.words,
    summary: list.summary,
    ...(list.usage === undefined ? {} : { usage: list.usage }),
    ...(list.description === undefined ? {} : { description: list.description }),
    examples: list.examples,
    options: list.options,
    positionals: list.positionals ?? [0, 0],
    async run(invocation) {
      await using connection = await connect(invocation);
      const shape = z.object({ [list.field]: z.array(list.row) });
      const answer = await connection.client.json(shape, 'GET', list.path(invocation));
      const rows = answer[list.field] ?? [];
      if (invocation.flag('json')) await printJson(rows);
      else await print(formatTable(list.header, rows.map(list.cells)));
      return 0;
    },
  };
}
