/* Stands in for Pinterest's own tag: keeps what it was called with, also over the pages of a visit. */
window.pintrk = function () {
  var calls = JSON.parse(sessionStorage.getItem('pintrk') || '[]');
  calls.push([].slice.call(arguments));
  sessionStorage.setItem('pintrk', JSON.stringify(calls));
};
