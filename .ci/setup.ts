/**
 * Brings what the tests need from the Go module proxy: the original ko, crane, and the sources of Knative Serving.
 *
 * Into the cache folder of the tests and the Go module cache; nothing is done when all is there.
 *
 * usage: bun .ci/setup.ts
 */
import { KNATIVE, findKnativeModule, installGoPrograms } from "../test/helpers/counterparts.ts";

if (import.meta.main) {
  await installGoPrograms();
  if (findKnativeModule() === undefined) throw new Error(`${KNATIVE} cannot be downloaded`);
}
