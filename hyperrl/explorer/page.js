// Puts into the page what the session sends, one message a frame, and tells it how many frames were shown.
window.explorer = {
  shown: 0,
  times: [],
  show(message) {
    message.lanes.forEach((lane, i) => this.showLane(lane, i));
    if (message.curves) document.getElementById("curves").innerHTML = message.curves;
    this.shown += 1;
    const now = performance.now();
    this.times = this.times.filter((time) => now - time < 2000).concat(now);
    if (this.shown % 10 === 0) {
      const seconds = (now - this.times[0]) / 1000;
      const rate = Math.round((this.times.length - 1) / seconds);
      document.getElementById("rate").textContent = `${rate} frames/s, ${message.start}`;
    }
    if (this.shown % 5 === 0) emitEvent("explorer_shown", message.number);
  },
  showLane(lane, i) {
    const card = document.getElementById(`lane-${i}`);
    const find = (kind) => card.querySelector(`.${kind}`);
    if (lane.svg !== undefined) find("drawing svg").innerHTML = lane.svg;
    if (lane.image !== undefined) find("drawing img").src = lane.image;
    if (lane.error !== undefined) find("drawing p").textContent = lane.error;
    find("status").textContent = lane.status;
    find("reward").textContent = lane.reward;
    find("return").textContent = lane.return;
    card.classList.toggle("over", lane.over);
    if (lane.weights !== undefined) find("maps").innerHTML = lane.weights;
    if (lane.beliefs) lane.beliefs.forEach((belief, j) => this.showBelief(belief, i, j));
  },
  showBelief(belief, i, j) {
    const place = document.getElementById(`belief-${j}-${i}`);
    place.style.display = "block";
    place.title = belief.text;
    const [band, mark] = place.children;
    band.style.left = `${belief.left}%`;
    band.style.width = `${belief.right - belief.left}%`;
    mark.style.left = `${belief.middle}%`;
  },
};
