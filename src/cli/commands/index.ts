import type { Command } from '../command.ts';
import { attachCommand } from './attach.ts';
import { auditRead, auditVerify } from './audit.ts';
import { backup, restore } from './backup.ts';
import { cacheList, cachePrune, cacheStat } from './cache.ts';
import { completionOf } from './completion.ts';
import { containerList, containerLogs, containerShow, containerWait } from './container.ts';
import { containerKill, containerRemove, containerStop } from './container-end.ts';
import { doctor } from './doctor.ts';
import { containerEvents, events } from './events.ts';
import { exec } from './exec.ts';
import { imageAdd, imageList, imageRemove, imageShow } from './image.ts';
import { imageDu, imagePin, imagePins, imageUnpin } from './image-local.ts';
import { indexPush } from './index-push.ts';
import { keyGenerate, keyList, keyRetire, keyRotate } from './key.ts';
import { registryLoginCheck } from './login-check.ts';
import { mount, mountList, umount } from './mount.ts';
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
import { containerStats } from './stats.ts';
import { tokenCreate, tokenList, tokenRevoke } from './token.ts';
import { version } from './version.ts';
import { workerDrain, workerList, workerRemove } from './worker.ts';
import { workspaceCreate, workspaceList, workspaceRemove } from './workspace.ts';

/** Every command, in the order of the overview. */
export const COMMANDS: readonly Command[] = [
  run,
  exec,
  attachCommand,
  imageAdd,
  imageList,
  imageShow,
  imageRemove,
  imageDu,
  imagePin,
  imagePins,
  imageUnpin,
  mount,
  mountList,
  umount,
  cacheList,
  cacheStat,
  cachePrune,
  indexPush,
  containerList,
  containerShow,
  containerLogs,
  containerWait,
  containerStop,
  containerKill,
  containerRemove,
  containerStats,
  containerEvents,
  events,
  secretSet,
  secretList,
  secretShow,
  secretReveal,
  secretHistory,
  secretRollback,
  secretRemove,
  registryLoginCheck,
  serve,
  doctor,
  workspaceCreate,
  workspaceList,
  workspaceRemove,
  tokenCreate,
  tokenList,
  tokenRevoke,
  keyList,
  keyGenerate,
  keyRotate,
  keyRetire,
  auditRead,
  auditVerify,
  workerList,
  workerDrain,
  workerRemove,
  backup,
  restore,
  completionOf(() => COMMANDS),
  version,
];
