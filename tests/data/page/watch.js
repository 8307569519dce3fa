"use strict";
// Collects everything the browser complains about, from the first script of the page on.
window.complaints = [];
for (const name of ["error", "warn"]) console[name] = (...all) => complaints.push(all.join(" "));
for (const name of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(name, (event) => {
    complaints.push(`${name} ${event.message ?? event.reason ?? event.violatedDirective}`);
  });

// A browser that only dumps a page makes no frames, and without frames it reports no change of size: `resized` does.
const observers = [];
window.ResizeObserver = class extends ResizeObserver {
  constructor(tell) {
    super(tell);
    observers.push(tell);
  }
};
const resized = (elements) => observers.forEach((tell) => tell(elements.map((target) => ({ target }))));
