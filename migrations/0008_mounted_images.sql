-- Images that a worker of the server's own process has mounted for no container: at a directory, or for a pin. Those
-- mounts outlive it, and a later worker of the same data directory is given their credentials when they are rotated,
-- also where that worker is a process of its own, whose word alone would not count.
CREATE TABLE mounted_images (
  worker_id TEXT NOT NULL REFERENCES workers (id) ON DELETE CASCADE,
  image_id  TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
  PRIMARY KEY (worker_id, image_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX mounted_images_by_image ON mounted_images (image_id);
