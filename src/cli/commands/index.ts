import type { Command } from '../command.ts';
import {
  containerList,
  containerLogs,
  containerRemove,
  containerShow,
  containerStop,
  containerWait,
} from './container.ts';
import { imageAdd, imageList, imageRemove, imageShow } from './image.ts';
import { run } from './run.ts';
import {
  secretHistory,
  secretList,
  secretRemove,
  secretReveal,
  secretRollback,
  secretSet,
  secretShow,
} from './secret.ts';
import { serve } from './serve.ts';
import { version } from './version.ts';

/** Every command, in the order of the overview. */
export const COMMANDS: readonly Command[] = [
  run,
  imageAdd,
  imageList,
  imageShow,
  imageRemove,
  containerList,
  containerShow,
  containerLogs,
  containerWait,
  containerStop,
  containerRemove,
  secretSet,
  secretList,
  secretShow,
  secretReveal,
  secretHistory,
  secretRollback,
  secretRemove,
  serve,
  version,
];
