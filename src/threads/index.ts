export { Semaphore } from './semaphore.ts';
export { NoThreadError, runTask, serveTask, type ThreadTask } from './task.ts';
